"""What a job leaves in its output directory, and what a candidate does to the cases that judge it."""

import secrets

import pytest

from pool.cli.job_options import write_files
from pool.model import Limits
from tests.hostile.payloads import forgery

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("unharmed")]

#: What it leaves, and the files of the result; None: the outcome is not ok, or any that the job may have.
OUTPUTS = {
    "links to files, directories and nothing": ("""
for name, to in (("passwd", "/etc/passwd"), ("root", "/"), ("none", "/nowhere"), ("loop", "loop"), ("fd", "/proc/self/fd/3"), ("up", "..")):
    os.symlink(to, f"out/{name}")
""", {}),
    "hard links to its own file": ("open('x', 'w').write('own')\nos.link('x', 'out/a'); os.link('x', 'out/b')", {"a": b"own", "b": b"own"}),
    "a fifo that nobody writes to, where that is allowed": ("""
open("out/a", "w").close()
try: os.mkfifo("out/fifo")
except PermissionError: pass
""", {"a": b""}),
    "a sparse file of the largest size": ("with open('out/a', 'wb') as file: file.truncate(1 << 23)", {"a": bytes(1 << 23)}),
    "a file that is larger than any": ("""
try:
    with open("out/a", "wb") as file: file.truncate(1 << 62)
except OSError: pass
""", {"a": b""}),
    "names with line ends, escapes and quotes": (
        "for name in ('a\\nb', '\\x1b[2J', '\\'\"$(x)', ' ', '\u202e', '-rf', '~', '*'): open(f'out/{name}', 'w').write('x')",
        dict.fromkeys(("a\nb", "\x1b[2J", "'\"$(x)", " ", "\u202e", "-rf", "~", "*"), b"x"),
    ),
    "names that would be alike or too long as escapes": (
        "for name in ('a\\nb', r'a\\nb', '\\x01' * 255): open('out/' + name, 'w').write('x')",
        dict.fromkeys(("a\nb", "a\\nb", "\x01" * 255), b"x"),
    ),
    "a name that is no text": ("open(b'out/\\xff', 'w').close()", None),
    "a path that is too long": ("os.makedirs('out/' + 'd/' * 200); open('out/' + 'd/' * 200 + 'f', 'w').close()", None),
    "files in a directory that is closed": ("os.makedirs('out/d'); open('out/d/a', 'w').close(); open('out/b', 'w').close(); os.chmod('out/d', 0)", {"b": b""}),
    "a file that is closed": ("open('out/a', 'w').close(); open('out/b', 'w').write('x'); os.chmod('out/a', 0)", {"b": b"x"}),
    "the directory is a link": ("os.rmdir('out'); os.symlink('/etc', 'out')", {}),
    "the directory is a file": ("os.rmdir('out'); open('out', 'w').close()", {}),
    "the directory above is a link": ("os.chdir('/tmp'); os.rename('work', 'x'); os.symlink('/usr', 'work')", {}),
    "a thousand directories deep": ("""
here = os.open(".", os.O_RDONLY); os.chdir("out")
for _ in range(200): os.mkdir("d"); os.chdir("d")
os.fchdir(here)
""", {}),
    "processes that swap files for links while they are read": ("""
if os.fork() == 0:
    os.setsid()
    while True:
        try:
            open("out/a", "w").write("own"); os.rename("out/a", "out/b"); os.symlink("/etc/passwd", "out/a"); os.unlink("out/a")
            os.mkdir("out/a"); os.rmdir("out/a")
        except OSError: pass
time.sleep(0.05)
""", None),
    "a file that becomes shorter while it is read": ("""
open("out/a", "wb").write(b"x" * (1 << 20))
if os.fork() == 0:
    os.setsid()
    while True:
        os.truncate("out/a", 0); os.truncate("out/a", 1 << 20)
""", None),
}  # fmt: skip


@pytest.mark.parametrize("title", OUTPUTS)
def test_an_output_file_is_a_file_of_the_job_and_has_a_name_below_the_directory(title, client, tmp_path, record):
    code, files = OUTPUTS[title]
    result = client.run("import os, time\n" + code, pool="open", limits=Limits(wall_s=10))
    assert result.outcome in {"ok", "error", "crash", "output"}, result
    if files is not None:
        assert (result.outcome, result.files) == ("ok", files), result.reason
    assert not any(b"root:" in content for content in result.files.values())
    write_files(tmp_path / "given", result.files)
    found = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert all(path.is_relative_to(tmp_path / "given") and path.is_file() and not path.is_symlink() for path in found)
    assert len(found) == len(result.files)
    record(
        "F16", f"output: {title}", "INERT", stopped_by=["runner"], seen=f"{result.outcome}, {len(result.files)} files"
    )


def test_outside_a_walk_that_follows_links_would_take_files_of_the_host(outside):
    code = "import os\ndef main():\n    os.mkdir('out'); os.symlink('/etc/passwd', 'out/a')\n    return b'root:' in open('out/a', 'rb').read()"
    assert outside(code).value == "True"


# ---- a candidate and its cases ----

CASES = [{"args": [n], "expected": n * 100 + 7} for n in range(6)]
ATTACKS = {
    "it answers for the case after its own": forgery.CODE + """
def main(n):
    if n == 0:
        everywhere(answer(value=b"\\x01") + answer(value=b"\\x6b") * 9)
        time.sleep(9)
    return -1
""",
    "it sends byte code for the next case": forgery.CODE + """
import marshal
EVIL = marshal.dumps(compile("def main(n): return n * 100 + 7", "<job>", "exec"))
def main(n):
    everywhere(message(b"compiled", EVIL) + answer(value=b"\\x01"))
    time.sleep(9)
""",
    "it leaves the answer for the next case": """
import builtins, os, sys
def main(n):
    for place in ("/tmp/n", "/dev/shm/n", "n", "out/n"):
        if os.path.exists(place): return n * 100 + 7
        open(place, "w").write(str(n))
    if hasattr(builtins, "n") or "N" in os.environ: return n * 100 + 7
    builtins.n = n; os.environ["N"] = str(n)
    if os.fork() == 0:
        os.setsid()
        while True: os.write(1, b"107") if os.getppid() else None
    return 0
""",
    "its value claims to be equal to all": """
class Equal(int):
    def __eq__(self, other): return True
    def __reduce__(self): return (int, (107,))
    __class__ = property(lambda self: bool)
    __hash__ = int.__hash__
def main(n): return Equal(0)
""",
    "its error shows itself as a success": """
class Fine(Exception):
    def __str__(self): return str(107)
    __repr__ = __str__
    def __reduce__(self): return (int, (107,))
    __class__ = property(lambda self: int)
def main(n): raise Fine(n * 100 + 7)
""",
    "it ends before its case is judged": "import os\ndef main(n):\n    print(n * 100 + 7, flush=True)\n    os._exit(0)",
    "it has an integer that cannot be written": "def main(n): return 10 ** 9000",
    "it is a list that is deep": "def main(n):\n    x = []\n    for _ in range(190): x = [x]\n    return x",
}  # fmt: skip


#: Looks in all objects for numbers as large as those that are expected.
LOOKS = """
import gc
def main(n):
    gc.unfreeze()
    held = [each for each in gc.get_objects() if type(each) in (list, tuple, dict)]
    return [x for each in held for x in (each.values() if type(each) is dict else each) if type(x) is int and x >> 61 == 1]
"""


@pytest.mark.parametrize("title", ATTACKS)
def test_a_candidate_passes_no_case_that_it_does_not_solve_and_stops_none(title, client, record):
    report = client.run_tests(ATTACKS[title], CASES, entry="main", pool="open", limits=Limits(wall_s=2, cpu_s=2))
    assert [row.passed for row in report.cases] == [False] * len(CASES), report.cases
    assert all(row.job is not None for row in report.cases)
    record("A34", f"run_tests: {title}", "INERT", stopped_by=["runner"], seen=report.cases[1].reason)


def test_a_candidate_that_solves_its_cases_passes_them(client):
    assert client.run_tests("def main(n): return n * 100 + 7", CASES, entry="main", pool="open").ok


def test_a_candidate_does_not_find_what_is_expected_of_it(client, record):
    secret = [(1 << 61) + secrets.randbelow(1 << 61) for _ in range(6)]
    cases = [{"args": [n], "expected": number} for n, number in enumerate(secret)]
    report = client.run_tests(LOOKS, cases, entry="main", pool="open")
    found = [row.job.value for row in report.cases]
    assert not any(set(each) & set(secret) for each in found), found
    itself = client.run(f"KNOWN = [{secret[0]}]\n{LOOKS}", entry="main", args=[0], pool="open")
    assert secret[0] in itself.value, "the search finds what is there"
    record("A34", "run_tests: it looks for what is expected", "INERT", stopped_by=["runner"], seen="nothing found")


def test_an_output_of_a_megabyte_of_spaces_is_judged(client):
    case = {"stdout": "1\n"}
    report = client.run_tests("print('1' + ' ' * 1_000_000 + 'x')", [case], pool="open")
    assert not report.ok
    assert client.run_tests("print('1' + ' ' * 500_000)", [case], pool="open").ok
