"""What holds for all tests."""

import asyncio
import inspect
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

#: Each build of an image removes what earlier ones have left, so two at once would disturb each other.
BUILD_IMAGES = ("tests/docker/test_image.py", "tests/docker/test_python_313.py", "tests/newcomer/")

#: Begun first: in the order of their names nothing would be left to run beside them at the end.
LONG = ("tests/unit/test_zmtp_libzmq.py", "tests/unit/test_values_refused.py")

# The same examples in every run, so that a run says something about a change and nothing about chance, and no limits of
# time, so that a busy machine fails no test. `./dev test --random` tries other examples each time.
_ANY_MACHINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, **_ANY_MACHINE)
settings.register_profile("random", derandomize=False, print_blob=True, **_ANY_MACHINE)
settings.load_profile("fixed")  # the option --hypothesis-profile comes after this


@pytest.fixture(scope="module")
def client(daemon):
    """A client of the module's daemon."""
    with daemon.client(timeout=60) as it:
        yield it


@pytest.fixture
def home(tmp_path_factory):
    """The directory of a daemon, or of one after the other. Its path is short, because sockets are below it."""
    return tmp_path_factory.mktemp("h")


@pytest.fixture
def next_job_is_served(request):
    """Whatever a test has done to the daemon of its client, the daemon serves the next job."""
    client = request.getfixturevalue("client") if "client" in request.fixturenames else None
    yield
    if client is not None:
        assert client.run("result = 6 * 7").value == 42


@pytest.fixture(scope="session", autouse=True)
def _hypothesis_has_begun():
    """Its first example registers a source of random numbers, and warns if a thread collects garbage at that moment."""

    @settings(max_examples=1)
    @given(st.none())
    def first(_):
        pass

    first()  # before a test has started a thread


def pytest_configure():
    """What runs in the background of a shell may ignore SIGINT, and every program that a test starts would too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that is a coroutine runs on an event loop of its own, for a minute at most."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    fixtures = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**fixtures), 60))
    return True


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile`, all tests of a file run in one process, and all that build images in one process."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "images" if nodeid.startswith(BUILD_IMAGES) else super()._split_scope(nodeid)

    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter):
    """Write the ids of what failed to the file that ./dev test names, for its own summary."""
    if path := os.environ.get("POOL_FAILED_TESTS"):
        failed = [*terminalreporter.stats.get("failed", ()), *terminalreporter.stats.get("error", ())]
        Path(path).write_text("".join(f"{test}\n" for test in dict.fromkeys(report.nodeid for report in failed)))
