"""`pytest -m corpus`: the run itself is a fixture, and the tests check its findings."""

from pathlib import Path

import pytest

from pool.images import build
from tests.corpus import packages

REPORT = Path(__file__).resolve().parents[2] / "docs" / "corpus.md"
FINDINGS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--corpus-share", type=float, default=1.0, help="of the programs, from 0 to 1; docs/corpus.md is of all of them"
    )


def pytest_collection_modifyitems(config, items):
    """Only for who says `-m corpus`: another `-m`, such as "not docker", would take half an hour unasked."""
    if "corpus" in config.option.markexpr:
        return
    unasked = [item for item in items if item.path.parent == Path(__file__).parent]
    config.hook.pytest_deselected(items=unasked)
    items[:] = [item for item in items if item.path.parent != Path(__file__).parent]


@pytest.fixture(scope="session")
def share(pytestconfig):
    share = pytestconfig.getoption("--corpus-share", default=1.0)
    if not 0 < share <= 1:
        pytest.fail("--corpus-share is above 0 and at most 1", pytrace=False)
    return share


@pytest.fixture(scope="session")
def findings(pytestconfig, share):
    from tests.corpus import session  # with pandas: not for whoever only collects

    try:
        packages.require()
    except packages.CorpusMissingError as error:
        pytest.fail(str(error), pytrace=False)
    build(session.IMAGE, progress=lambda _: None)
    with session.visible(pytestconfig):
        print()
        seen = session.run(share)
    pytestconfig.stash[FINDINGS] = seen
    return seen


def pytest_terminal_summary(terminalreporter, config):
    seen = config.stash.get(FINDINGS, None)
    if seen is None:
        return
    from tests.corpus import report

    text = report.text(seen)
    terminalreporter.write_line(f"\n{text}")
    if config.getoption("--corpus-share", default=1.0) == 1 and not seen.unexplained():
        REPORT.write_text(text, encoding="utf-8")
