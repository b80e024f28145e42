"""The compiled filter, run by an interpreter of classic BPF and by the kernel, does what the rules say in plain words."""

import json
import platform
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner import seccomp, syscalls
from runner.seccomp import Kept, Only, Without

from tests.support.process import python

ROOT = Path(__file__).parents[2]
MACHINES = ("x86_64", "aarch64")
OPTIONS = ((), ("subprocess",))
X32 = 0x40000000
WORD, DOUBLE = (1 << 32) - 1, (1 << 64) - 1


# ---- what a program answers, and what it should ----


def instructions(program):
    return list(struct.iter_unpack("=HBBI", program))


def run(steps, number, arguments=(), *, arch):
    """What the program returns for a call, as the kernel runs it: linux/filter.h, struct seccomp_data."""
    facts = struct.pack("<IIQ6Q", number & WORD, arch, 0, *(*arguments, *[0] * 6)[:6])
    at = accumulator = 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", facts, constant)
        elif code == 0x06:
            return constant
        elif code == 0x05:
            at += constant
        else:
            holds = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}
            at += if_true if holds[code] else if_false


def meant(number, arguments, *, rules, absent, newest, denied):
    """The same in plain words, without a search tree. Numbers of the kernel's are 32 bits, and so are arguments."""
    number &= WORD
    if number > newest or number in absent:
        return seccomp.ABSENT
    if number not in rules:
        return denied
    rule = rules[number]
    if isinstance(rule, Kept):
        if arguments[rule.argument] & WORD == rule.value and arguments[rule.other] & rule.bits:
            return denied
        rule = rule.rule
    if rule is None or isinstance(rule, int):
        return seccomp.ALLOW if rule is None else rule
    value = arguments[rule.argument] & WORD
    allowed = {Only: lambda: value in rule.values, Without: lambda: not value & rule.bits}[type(rule)]()
    return seccomp.ALLOW if allowed else getattr(rule, "otherwise", 0) or denied


class Job:
    """The job filter of one machine, compiled, and its rules by number."""

    def __init__(self, machine, options=(), *, explain=False):
        numbers = syscalls.numbers(machine)
        self.arch = syscalls.audit_arch(machine)
        self.denied = seccomp.TRAP if explain else seccomp.DENY
        self.rules = {numbers[n]: rule for n, rule in seccomp.allowed(options, machine).items() if n in numbers}
        self.absent = {numbers["clone3"], numbers["openat2"]}
        self.steps = instructions(seccomp.job_filter(options, explain=explain, machine=machine))

    def answers(self, number, arguments=(0,) * 6):
        return run(self.steps, number, arguments, arch=self.arch)

    def meant(self, number, arguments=(0,) * 6):
        return meant(
            number, arguments, rules=self.rules, absent=self.absent, newest=syscalls.NEWEST, denied=self.denied
        )


JOBS = {(machine, options): Job(machine, options) for machine in MACHINES for options in OPTIONS}
EVERY = pytest.mark.parametrize("job", JOBS.values(), ids=[f"{m}-{'-'.join(o) or 'none'}" for m, o in JOBS])


# ---- the job filter, interpreted ----


@EVERY
def test_every_number_is_answered_as_the_rules_say(job):
    for number in (*range(601), *range(X32, X32 + 601), 1 << 31, WORD):
        assert job.answers(number) == job.meant(number), number


@EVERY
def test_the_answers_are_of_five_kinds_and_each_of_them_occurs(job):
    seen = {job.answers(number) for number in range(601)}
    assert seen == {seccomp.ALLOW, seccomp.DENY, seccomp.ABSENT, seccomp.DONE}
    assert run(job.steps, 0, arch=0) == seccomp.KILL


@EVERY
@settings(max_examples=300, deadline=None)
@given(chosen=st.data())
def test_arguments_decide_as_the_rules_say_and_only_by_their_low_half(job, chosen):
    number = chosen.draw(
        st.sampled_from(sorted(number for number, rule in job.rules.items() if isinstance(rule, tuple)))
    )
    rule = job.rules[number]
    near = rule.values if hasattr(rule, "values") else [1 << bit for bit in range(32)]
    interesting = st.sampled_from([*near, *(value ^ 1 for value in near), *(value | 1 << 32 for value in near)])
    value = chosen.draw(st.one_of(interesting, st.integers(0, WORD), st.integers(0, DOUBLE)))
    arguments = chosen.draw(st.lists(st.integers(0, DOUBLE), min_size=6, max_size=6))
    arguments[rule.argument] = value
    assert job.answers(number, arguments) == job.meant(number, arguments)
    arguments[rule.argument] ^= 0xFFFF << 32
    assert job.answers(number, arguments) == job.meant(number, arguments)


@EVERY
@given(number=st.integers(0, WORD), arguments=st.lists(st.integers(0, DOUBLE), min_size=6, max_size=6))
def test_any_number_with_any_arguments_is_answered_as_the_rules_say(job, number, arguments):
    assert job.answers(number, arguments) == job.meant(number, arguments)


@EVERY
@given(arch=st.integers(0, WORD), number=st.integers(0, 600))
def test_a_call_of_another_architecture_kills_whatever_its_number(job, arch, number):
    expected = job.meant(number) if arch == job.arch else seccomp.KILL
    assert run(job.steps, number, arch=arch) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_the_other_machines_native_calls_kill_too(machine):
    others = {0x40000003, 0x40000028, *(JOBS[other, ()].arch for other in MACHINES if other != machine)}  # i386, arm
    for arch in others:
        assert {run(JOBS[machine, ()].steps, number, arch=arch) for number in range(601)} == {seccomp.KILL}


@EVERY
def test_the_program_is_short_enough_for_the_kernel_and_never_jumps_back_or_out(job):
    assert len(job.steps) <= 4096
    for at, (code, if_true, if_false, constant) in enumerate(job.steps):
        ways = {0x05: (constant,), 0x20: (0,), 0x06: ()}.get(code, (if_true, if_false))
        assert all(at + 1 + way < len(job.steps) for way in ways)


@pytest.mark.parametrize("machine", MACHINES)
def test_to_explain_what_is_refused_is_trapped_and_nothing_else_changes(machine):
    telling, plain = Job(machine, explain=True), JOBS[machine, ()]
    for number in range(601):
        for arguments in ((0,) * 6, (1,) * 6, (WORD,) * 6):
            usual = plain.answers(number, arguments)
            assert telling.answers(number, arguments) == (seccomp.TRAP if usual == seccomp.DENY else usual)


# ---- filters of any shape ----

RULES = st.one_of(
    st.none(),
    st.builds(Only, st.integers(0, 5), st.lists(st.integers(0, WORD), min_size=1, max_size=9).map(tuple)),
    st.just(seccomp.DONE),
    st.builds(Without, st.integers(0, 5), st.integers(1, WORD), st.sampled_from([0, seccomp.DONE])),
    st.builds(
        Kept,
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(0, 5),
        st.sampled_from([DOUBLE, 0x4000, 1 << 40]),
        st.sampled_from([None, Only(0, (0, 1))]),
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    rules=st.dictionaries(st.integers(0, 120), RULES, max_size=80),
    absent=st.sets(st.integers(0, 120), max_size=3),
    newest=st.integers(0, 120),
    value=st.integers(0, DOUBLE),
)
def test_any_set_of_rules_is_compiled_to_what_it_says(rules, absent, newest, value):
    program = seccomp.compile_filter(rules, arch=7, newest=newest, absent=sorted(absent), denied=seccomp.DENY)
    steps, arguments = instructions(program), (value,) * 6
    for number in range(130):
        expected = meant(number, arguments, rules=rules, absent=absent, newest=newest, denied=seccomp.DENY)
        assert run(steps, number, arguments, arch=7) == expected


def test_a_tree_whose_halves_are_longer_than_a_conditional_jump_is_still_right():
    rules = {number: Only(0, tuple(range(number, number + 40))) for number in range(0, 100, 2)}
    steps = instructions(seccomp.compile_filter(rules, arch=7, newest=100, absent=[], denied=seccomp.DENY))
    assert max(constant for code, _, _, constant in steps if code == 0x05) > 255
    for number in range(103):
        for value in (number - 1, number, number + 39, number + 40):
            arguments = (max(value, 0),) * 6
            expected = meant(number, arguments, rules=rules, absent=(), newest=100, denied=seccomp.DENY)
            assert run(steps, number, arguments, arch=7) == expected


def test_a_rule_with_more_values_than_a_jump_can_pass_is_an_error_and_no_wrong_filter():
    rules = {1: Only(0, tuple(range(300)))}
    with pytest.raises(struct.error):
        seccomp.compile_filter(rules, arch=7, newest=3, absent=[], denied=seccomp.DENY)


# ---- in the kernel ----

native = pytest.mark.skipif(platform.machine() not in MACHINES, reason="there is no table for this machine")
_PROGRAM = """
import ctypes, errno, fcntl, json, os, signal, socket, sys, threading
sys.path.insert(0, "worker_image")
from runner import kernel, seccomp, syscalls
libc = ctypes.CDLL(None, use_errno=True)
numbers = syscalls.numbers()

def call(number, *arguments):
    return 0 if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) >= 0 else ctypes.get_errno()

def attempt(function):
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "went through"

def count():
    done = []
    threads = [threading.Thread(target=lambda: done.append(sum(range(1000)))) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return done

def family():
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def foreign():
    # getpid by the 32-bit entry: the filter kills the whole process
    import mmap
    child = os.fork()
    if child == 0:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        os._exit(0)
    return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

before = attempt(lambda: socket.socket().close())
kernel.forbid_new_privileges()
kernel.Filter(seccomp.job_filter()).install()
seen = {
    "before": before,
    "socket": attempt(socket.socket),
    "unix": attempt(lambda: socket.socket(socket.AF_UNIX)),
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "clone3": errno.errorcode[call(numbers["clone3"], 0, 0)],
    "unknown": errno.errorcode[call(2000)],
    "unshare": errno.errorcode[call(numbers["unshare"], 0)],
    "another filter": errno.errorcode[call(numbers["seccomp"], 1, 0, 0)],
    "dumpable": errno.errorcode[call(numbers["prctl"], 4, 1, 0, 0, 0)],
    "owner of a descriptor": attempt(lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())),
    "flags of a descriptor": attempt(lambda: fcntl.fcntl(0, fcntl.F_GETFL)),
    "pair": attempt(socket.socketpair),
    "file": open("/proc/self/comm").read().strip() != "",
    "threads": count(),
    "fork": family(),
    "foreign": foreign() if os.uname().machine == "x86_64" else signal.SIGSYS,
}
print(json.dumps(seen), flush=True)
"""


@native
def test_the_kernel_takes_the_filter_and_computing_goes_on_while_sockets_are_refused():
    done = python("-c", _PROGRAM, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "before": "went through",
        "socket": "EPERM",
        "unix": "EPERM",
        "exec": "EPERM",
        "clone3": "ENOSYS",
        "unknown": "ENOSYS",
        "unshare": "EPERM",
        "another filter": "EPERM",
        "dumpable": "EPERM",
        "owner of a descriptor": "EPERM",
        "flags of a descriptor": "went through",
        "pair": "went through",
        "file": True,
        "threads": [499500] * 3,
        "fork": 7,
        "foreign": 31,  # SIGSYS
    }


_TELLING = """
import socket, sys
sys.path.insert(0, "worker_image")
from runner import kernel, seccomp
from runner.denials import DenialReporter
job = compile('''
import socket
def reach():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return type(error).__name__
print([reach() for _ in range(3)])
pair = socket.socketpair()
print(sum(range(10)), flush=True)
''', "<job>", "exec")
reporter = DenialReporter()
reporter.install()
kernel.forbid_new_privileges()
kernel.Filter(seccomp.job_filter(explain=True)).install()
exec(job, {})
"""


@native
def test_a_refused_call_is_told_once_with_its_arguments_and_line_and_fails_as_it_would_have():
    done = python("-c", _TELLING, cwd=ROOT)
    assert done.stdout == "['PermissionError', 'PermissionError', 'PermissionError']\n45\n"
    assert done.stderr == "denied: socket(0x2, 0x80001, 0x0) at line 5\n"
    assert done.returncode == 0
