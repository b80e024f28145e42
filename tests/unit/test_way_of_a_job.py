"""One plain job, followed through the real client, daemon and runner: it takes the tour of docs/architecture.md.

That the tour's functions exist is tested in test_architecture_page.py.
"""

import re
from pathlib import Path

import pytest

from tests.support import tour

ROOT = Path(__file__).parents[2]
#: A step of the tour: "9. `pool/core/x.py` `function` does this", with further files and functions in it.
_STEP = re.compile(r"^(\d+)\. (`.*)$", re.MULTILINE)
_PLACE = re.compile(r"`((?:pool|worker_image)/\S+?\.py)` `([\w.]+)`")
#: The way of a plain job may have no more distinct functions and files. Lower them when the way gets shorter.
MOST = {("client", "daemon"): (60, 22), ("runner", "child"): (39, 13)}


def _steps():
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition("## The way of one job")[2].partition("\n## ")[0]
    return {int(number): _PLACE.findall(line) for number, line in _STEP.findall(section)}


@pytest.fixture(scope="module")
def followed():
    return tour.record()


def test_a_plain_job_calls_every_function_of_the_tour_and_passes_client_daemon_and_child_in_turn(followed):
    *steps, _ = _steps().items()  # the last step, the cleanup, comes after the client has its result
    called = [(file, function) for _, file, function in followed.calls]
    for number, places in steps:
        for file, function in places:
            place = (file.removeprefix("worker_image/"), function)
            assert place in called, f"step {number}: a plain job does not call {place}"
    firsts = [called.index((places[0][0].removeprefix("worker_image/"), places[0][1])) for _, places in steps]
    # Listener and controller are passed more than once, and daemon and client run side by side: what is compared is
    # the order of the steps that a job takes for the first time in one process after the other.
    submitted, started, run = (firsts[number - 1] for number in (2, 7, 15))
    assert submitted < started < run


@pytest.mark.parametrize(("processes", "most"), MOST.items(), ids=["client and daemon", "runner and child"])
def test_the_way_of_a_plain_job_gets_no_longer(followed, processes, most):
    functions, files = followed.functions(*processes), followed.files(*processes)
    listed = "\n".join(" ".join(each) for each in functions)
    assert len(functions) <= most[0], f"{len(functions)} functions:\n{listed}"
    assert len(files) <= most[1], files
