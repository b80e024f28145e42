"""What the daemon does when its terminal is closed."""

import signal

from tests.support.daemons import DaemonProcess

POOLS = {"default": {"size": {"min": 1, "max": 1}, "preload": {"modules": []}}}


def test_a_daemon_whose_terminal_is_closed_stops_as_by_sigterm():
    with DaemonProcess(POOLS) as daemon:
        socket = daemon.run_dir / "submit.sock"
        assert socket.exists()
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.process.wait(60) == 0
        assert not socket.exists()


def test_a_daemon_under_nohup_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which its process inherits
    try:
        daemon = DaemonProcess(POOLS).start()
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        daemon.process.send_signal(signal.SIGHUP)
        with daemon.client(timeout=60) as client:
            assert client.run("result = 7").value == 7
        assert daemon.process.poll() is None
    finally:
        daemon.stop()
