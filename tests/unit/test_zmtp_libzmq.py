"""The daemon's sockets with several versions of libzmq and pyzmq as the peer. Old releases are fetched into .cache."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from pool.daemon.zmtp.connection import Timeouts
from tests.support import libzmq_peer
from tests.support.process import python
from tests.support.pyzmq_versions import libraries, unpacked
from tests.support.waiting import eventually
from tests.support.zmtp_host import Host

ROOT = Path(__file__).parents[2]
#: Releases of pyzmq, and the libzmq that each of them contains: its version, the ZMTP 3.minor that it announces, and
#: whether it has heartbeats of its own. libzmq 4.1 does not answer a PING; 4.2 and 4.3.2 do and announce ZMTP 3.0.
RELEASES = {
    "16.0.4": ("4.1.6", 0, False),
    "17.1.2": ("4.2.5", 0, True),
    "19.0.2": ("4.3.2", 0, True),
    "26.2.0": ("4.3.5", 1, True),
    None: (zmq.zmq_version(), 1, True),  # the one that is installed
}
CASES = [(release, beats) for release, (_, _, able) in RELEASES.items() for beats in ((0, 100) if able else (0,))]

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheels are those for x86-64")


@pytest.mark.parametrize(("release", "heartbeat_ms"), CASES)
def test_a_libzmq_is_served_on_one_connection_and_is_sent_pings_if_it_knows_them(
    tmp_path, release, heartbeat_ms, monkeypatch
):
    monkeypatch.setattr("pool.daemon.zmtp.transport._SWEEP_S", 0.05)
    version, minor, _ = RELEASES[release]
    command = [sys.executable, libzmq_peer.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with Host(tmp_path, Timeouts(ping_after=0.3, pong=30)) as host:
        found = libraries(release)
        with subprocess.Popen([*command, host.endpoint, str(heartbeat_ms), "1", *map(str, found)], **pipes) as peer:
            said = json.loads(peer.stdout.readline())
            (client,) = host.call(lambda: list(host.transport.submit._clients.values()))
            if minor >= 1 and not heartbeat_ms:
                eventually(lambda: client.connection._pinged_at > 0)
            peer.communicate()
        assert said["version"] == version
        assert said["sizes"] == 2 * [[len(frame) for frame in message] for message in libzmq_peer.MESSAGES]
        assert client.connection._minor == minor
        assert len({address for address, _, _ in host.from_clients}) == 1
        assert minor >= 1 or not client.connection._pinged_at
        assert not host.counts


_RUN = """
import sys, zmq, pytest
assert zmq.__file__.startswith(sys.argv[1]), zmq.__file__
sys.exit(pytest.main(["-q", "--timeout=240", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[2:]]))
"""


def test_the_tests_of_the_sockets_pass_with_the_lowest_pyzmq():
    place = unpacked("26.2.0")
    names = [f"tests/unit/test_{name}.py" for name in ("zmtp_sockets", "client", "client_lifetime")]
    done = python(
        "-c",
        _RUN,
        str(place),
        *names,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])},
        cwd=ROOT,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
