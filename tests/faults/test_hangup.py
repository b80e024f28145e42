"""What the daemon does when its terminal is closed."""

import contextlib
import signal

from tests.support.daemons import DaemonProcess, pool_of

POOLS = {"default": pool_of(1)}


@contextlib.contextmanager
def inheriting(handler):
    """What a process that is started inside does at SIGHUP; the tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_daemon_whose_terminal_is_closed_stops_as_by_sigterm():
    with inheriting(signal.SIG_DFL):
        daemon = DaemonProcess(POOLS).start()
    try:
        socket = daemon.run_dir / "submit.sock"
        assert socket.exists()
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.process.wait(60) == 0
        assert not socket.exists()
    finally:
        daemon.stop()


def test_a_daemon_under_nohup_goes_on():
    with inheriting(signal.SIG_IGN):
        daemon = DaemonProcess(POOLS).start()
    try:
        daemon.process.send_signal(signal.SIGHUP)
        with daemon.client(timeout=60) as client:
            assert client.run("result = 7").value == 7
        assert daemon.process.poll() is None
    finally:
        daemon.stop()
