"""Every system call that no job may make, by number: in a job, on the host, and on the host under the job's filter alone.

A parameter of these tests is an entry of the catalogue; the calls of each are in calls.py.
"""

import platform
from ast import literal_eval

import pytest

from tests.hostile import calls
from tests.hostile.calls import ABSENT, CALLS

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64"),
]

TITLES = {
    "B": "scheduling, locked memory and timers of the kernel",
    "B18": "huge pages of the host, merged and poisoned pages",
    "C1": "unshare of any namespace",
    "C2": "clone and clone3 into new namespaces",
    "C3": "setns into any namespace",
    "C4": "mount, umount2, pivot_root, chroot",
    "C5": "the newer mount calls",
    "C6": "ptrace, kcmp, descriptors and signals of others",
    "C7": "memory of another process",
    "C10": "key rings",
    "C11": "bpf",
    "C12": "perf_event_open",
    "C13": "userfaultfd",
    "C14": "io_uring and kernel aio",
    "C15": "kernel modules",
    "C16": "kexec",
    "C17": "the clock set",
    "C18": "reboot",
    "C19": "swap",
    "C21": "personality",
    "C22": "obsolete and administrative calls",
    "C23": "socket families and options",
    "C28": "device nodes made",
    "C29": "users, groups, capabilities and attributes",
    "C34": "mounts listed by the newer calls",
    "C36": "sockets of any kind",
    "C38": "programs and memory files",
    "C41": "filters, terminals, process options",
    "C42": "the page cache: what is in it, pages dropped, reads past it",
    "C43": "System V and POSIX ipc, pipes spliced",
    "C44": "files watched, and opened by handle",
    "D3": "reaper of others' children",
    "D16": "scheduling of itself and others",
}


def of(entry):
    return {name: each for name, each in CALLS.items() if each[0] == entry}


@pytest.fixture(scope="module")
def inside(client):
    result = client.run(calls.PROGRAM, entry="main", args=[CALLS], pool="open")
    assert result.ok, result
    return result.value


@pytest.fixture(scope="module")
def loose(outside):
    """As root on the host: only root can tell a filter from a missing right."""
    return literal_eval(outside(calls.PROGRAM, CALLS).value)


@pytest.fixture(scope="module")
def without_rights(outside):
    """As a user who may do nothing, which is what a worker is."""
    return literal_eval(outside(calls.PROGRAM, CALLS, user=65534).value)


@pytest.fixture(scope="module")
def under_the_job_filter(outside):
    return literal_eval(outside(calls.FILTERED, CALLS).value)


def test_every_entry_has_a_title():
    assert {entry for entry, *_ in CALLS.values()} == TITLES.keys()


@pytest.mark.parametrize("entry", TITLES)
def test_every_call_of_the_entry_is_refused_in_a_job(entry, inside, loose, without_rights, record):
    mine = of(entry)
    assert {name: inside[name] for name in mine} == {name: "ENOSYS" if name in ABSENT else "EPERM" for name in mine}
    rights = ["container"] if all(without_rights[name] == "EPERM" for name in mine) else []
    record(entry, f"{TITLES[entry]}, by number", "ERR", stopped_by=[*calls.layers(mine), *rights],
           seen=words(inside, mine), outside=words(loose, mine))  # fmt: skip


@pytest.mark.parametrize("entry", TITLES)
def test_on_the_host_the_same_calls_reach_the_kernel(entry, loose):
    answers = {name: loose[name] for name in of(entry)}
    reached = [name for name, answer in answers.items() if answer not in {"EPERM", "ENOSYS"}]
    absent = [name for name, answer in answers.items() if answer == "ENOSYS"]
    assert len(reached) + len(absent) == len(answers), answers
    if not reached:
        pytest.skip("this kernel has no such call")


@pytest.mark.parametrize("entry", TITLES)
def test_the_job_filter_alone_refuses_them(entry, under_the_job_filter):
    mine = of(entry)
    expected = {name: "ENOSYS" if name in ABSENT else "EPERM" for name in mine}
    assert {name: under_the_job_filter[name] for name in mine} == expected


# ---- other tables of numbers -----------------------------------------------------------------------------------------

#: Numbers of the 32-bit table; no filter of arguments can tell what `socketcall` does.
INT_80 = {
    "getpid": 20,
    "fork": 2,
    "execve": 11,
    "mount": 21,
    "ptrace": 26,
    "socketcall": 102,
    "clone": 120,
    "socket": 359,
}
BY_INT_80 = calls.PROGRAM + calls.PAGE + """
def main(numbers):
    return {name: in_fork(lambda: by_int_80(number), lambda: None) for name, number in numbers.items()}
"""  # fmt: skip


def test_c23_the_32_bit_table_ends_the_process(attack, outside, record):
    loose = literal_eval(outside(BY_INT_80, {"getpid": 20}).value)
    assert loose == {"getpid": "ok"}, "this kernel has no 32-bit table: nothing is shown"
    seen = attack(BY_INT_80, INT_80).value
    assert seen == dict.fromkeys(INT_80, "SIGSYS")
    record("C23", "the 32-bit table by int 0x80: socketcall, execve, mount, ...", "KILL",
           stopped_by=["job filter", "seccomp"], seen=seen, outside=loose)  # fmt: skip


#: What would matter most, and all that only this table has.
X32 = (0, 39, 41, 42, 53, 56, 57, 58, 59, 62, 101, 157, 165, 272, 302, 308, 310, 321, 322, 425, 435, *range(512, 548))


def test_c23_numbers_with_the_x32_bit_end_the_process_or_are_not_there(attack, record):
    table = {str(number): ("", 0x40000000 | number) for number in X32}
    seen = attack(calls.PROGRAM, table).value
    assert set(seen.values()) <= {"SIGSYS", "ENOSYS"}, {
        name: each for name, each in seen.items() if each not in {"SIGSYS", "ENOSYS"}
    }
    record("C23", "numbers with the x32 bit", "KILL", stopped_by=["job filter", "seccomp"], seen=set(seen.values()))


def test_c41_numbers_far_beyond_the_table_are_not_there(attack, record):
    numbers = [470, 511, 548, 1000, 0xFFFF, 0x3FFFFFFF, 0x7FFFFFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, (1 << 32) | 59]
    seen = attack(calls.PROGRAM, {hex(number): ("", number, 0, 0, 0) for number in numbers}).value
    # The kernel takes the low half: the two past 32 bits are read (0) and execve (59).
    assert seen.pop(hex(1 << 32)) in {"ok", "EFAULT", "EBADF"}
    assert seen.pop(hex((1 << 32) | 59)) == "EPERM"
    assert set(seen.values()) <= {"ENOSYS", "SIGSYS", "EPERM"}, seen
    record(
        "C41",
        "numbers that are in no table, and with high bits",
        "ERR",
        stopped_by=["job filter", "seccomp"],
        seen=seen,
    )


def test_c2_flags_in_the_high_half_of_an_argument_open_no_namespace(attack, record):
    user, sigchld = 0x10000000, 17
    table = {
        "high half": ("C2", 56, 0xFFFF_FFFF_0000_0000 | sigchld, 0, 0, 0, 0),
        "both": ("C2", 56, (user << 32) | user | sigchld, 0, 0, 0, 0),
        "unshare": ("C1", 272, (1 << 32) | user),
    }
    seen = attack(calls.PROGRAM, table).value
    assert seen["both"] == seen["unshare"] == "EPERM"
    assert seen["high half"] in {"EPERM", "ok", "EINVAL"}  # the kernel takes the low half: a plain fork
    record("C2", "namespaces asked for in the high half of an argument", "ERR", stopped_by=["job filter"], seen=seen)


def words(answers, mine):
    """{EPERM: unshare_user, ...} in short."""
    by_answer = {}
    for name in mine:
        by_answer.setdefault(answers[name], []).append(name)
    return "; ".join(f"{answer}: {', '.join(names)}" for answer, names in sorted(by_answer.items()))
