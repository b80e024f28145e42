"""CPython's own tests in the pool and in a plain process: each that ends otherwise in the pool has a known cause.

apt-get install libpython3.11-testsuite && pytest -m corpus tests/corpus/test_stdlib.py      # writes docs/stdlib.md
"""

import json
import os
from pathlib import Path

import pytest

from pool.images import build
from pool.model import Outcome
from tests.corpus import stdlib
from tests.support.daemons import DaemonProcess

pytestmark = [pytest.mark.corpus, pytest.mark.docker, pytest.mark.timeout(3600)]

REPORT = Path(__file__).resolve().parents[2] / "docs" / "stdlib.md"
IMAGE = "pool-worker-corpus:latest"
TEMPLATE = {
    "image": IMAGE,
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 1000},
    "limits": {"wall_s": 300, "cpu_s": 300, "memory": "1g", "tmp": "256m"},
    "screen": "off",
}
#: How the last line of a traceback begins, and what is behind it.
CAUSES = {
    "PermissionError: [Errno 1]": "what the sandbox denies: programs, sockets",
    "PermissionError: [Errno 13]": "what the sandbox denies: programs, sockets",
    "OSError: [Errno 27] File too large": "a limit of the template: the scratch space",
    "OSError: [Errno 28] No space left": "a limit of the template: the scratch space",
    "RuntimeError: can't start new thread": "a limit of the template: threads",
    "OSError: [Errno 30] Read-only file system": "the file system is read-only outside of the scratch space",
    "ModuleNotFoundError: No module named '_test": "modules for CPython's own tests are not in the image",
    "FileNotFoundError: [Errno 2] No such file or directory: '@test": "the output of a program that was not started",
    "    NameError: name 'err' is not defined": "the output of a program that was not started",
}


@pytest.fixture(scope="module")
def compared():
    """{module: (what the pool says, what the plain process says)}, of those that end in both."""
    from tests.corpus.reference import Reference

    cases = stdlib.load(Path(os.environ.get("POOL_STDLIB", stdlib.LIBRARY)))
    if not cases:
        pytest.skip(f"{stdlib.PACKAGE} is not installed")
    build(IMAGE, progress=lambda _: None)
    with Reference(IMAGE) as reference:
        plain = reference.look(cases, wall_s=300)
    found = {}
    with DaemonProcess({"default": TEMPLATE}, engine="docker") as daemon, daemon.client(timeout=120) as client:
        for case, witness in zip(cases, plain, strict=True):
            result = client.run(case.code, **case.options())
            found[case.name] = (result, witness.seen)
    return found


def cause(line):
    return next((cause for beginning, cause in CAUSES.items() if line.startswith(beginning)), "")


def test_each_test_that_fails_only_in_the_pool_has_a_known_cause(compared):
    rows, unexplained = [], []
    for name, (result, seen) in compared.items():
        if Outcome.OK not in {result.outcome, seen.outcome} and result.outcome == seen.outcome:
            rows.append((name, "the same", f"both end {result.outcome}", ""))
            continue
        assert result.ok, (name, result.reason, result.error)
        before = plain_failures(seen)
        new = {test: line for test, line in result.value["failed"].items() if test not in before}
        unexplained += [(name, test, line) for test, line in new.items() if not cause(line)]
        causes = sorted({cause(line) for line in new.values()})
        if seen.outcome != "ok":
            causes.append(f"the plain process ended {seen.outcome}, so all that fail are counted")
        rows.append((name, str(result.value["ran"]), str(len(new)), "; ".join(causes)))
    REPORT.write_text(page(rows), encoding="utf-8")
    assert not unexplained


def plain_failures(seen):
    """The names of the tests that fail in the plain process too, from the canonical form of its value."""
    if seen.outcome != "ok":
        return set()
    entries = dict(json.loads(seen.value)[1])
    return {name for name, _ in entries["failed"][1]}


def page(rows):
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""# CPython's own tests

Written by `pytest -m corpus tests/corpus/test_stdlib.py` with Debian's package `{stdlib.PACKAGE}` installed. Each module of
CPython's tests runs as one job, and in a plain process of the same interpreter. A test that fails in both is not counted:
its fault is not the pool's. (csv is left out: its tests do not end within five minutes in either; so are sqlite3 and unittest,
whose tests Debian keeps elsewhere, and the modules of asyncio's tests that need sockets or start programs.)

| module | tests | fail only in the pool | cause |
| --- | --- | --- | --- |
{lines}
"""
