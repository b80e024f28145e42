"""The payload of a large job as a file: from the daemon's offer to the frames of the child."""

import mmap
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from runner import body
from runner.body import NoBodyError

from pool.daemon.journal_entries import PAGED, head_of, places, split
from pool.daemon.zmtp.offer import NAME, FileOffer
from pool.daemon.zmtp.transport import Epoll
from pool.wire import MAPPED_BYTES
from tests.support.process import descriptors

LARGE = bytes(range(256)) * (MAPPED_BYTES // 256)
FRAMES = [b"code", b"", b"small", LARGE, b"x" * 5000, LARGE[::-1] + b"tail"]


@pytest.fixture
def file(tmp_path):
    """A file with the frames in their places, as the journal writes it."""
    path = tmp_path / "1.job"
    starts, _ = places([*map(len, FRAMES)])
    with path.open("wb") as it:
        it.write(PAGED + head_of(FRAMES))
        for start, frame in zip(starts, FRAMES, strict=True):
            it.seek(start)
            it.write(frame)
    return path


class Host:
    """The daemon's end."""

    def __init__(self, directory):
        self.directory, self.refused = directory, []
        self.poller = Epoll()

    def offer(self, path):
        descriptor = os.open(path, os.O_RDONLY)
        return FileOffer(self.poller, self.directory, descriptor, mode=0o600, on_refused=lambda: self.refused.append(1))

    def turn(self):
        self.poller.wait(10)

    def fetch(self, *, shown=False):
        """As the runner does, in a process of its own. Returns what came of it."""
        code = "import sys; from pathlib import Path; from runner import body; print(body.fetch(Path(sys.argv[1]), shown=bool(sys.argv[2])) is not None)"
        fetching = subprocess.Popen(
            [sys.executable, "-c", code, str(self.directory), "1" if shown else ""],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": "worker_image:."},
            cwd=Path(__file__).parents[2],
        )
        self.turn()  # it connects and gets the descriptor
        self.turn()  # it says no, or ends
        return fetching.communicate(timeout=120)[0] == b"True\n"


@pytest.fixture
def host(tmp_path):
    it = Host(tmp_path)
    yield it
    it.poller.close()


def test_frames_in_a_file_are_read_as_they_were_and_the_large_ones_begin_with_a_page(file):
    assert split(file.read_bytes()) == FRAMES
    starts, end = places([*map(len, FRAMES)])
    assert end == file.stat().st_size
    for start, frame in zip(starts, FRAMES, strict=True):
        assert len(frame) < MAPPED_BYTES or start % mmap.PAGESIZE == 0


def test_frames_of_an_earlier_version_are_read_too():
    assert split(head_of(FRAMES) + b"".join(FRAMES)) == FRAMES


def test_half_a_file_is_no_payload(file):
    with pytest.raises(ValueError, match="instead of"):
        split(file.read_bytes()[:-1])


def test_a_runner_gets_the_file_once_and_nothing_is_left_of_the_offer(host, file):
    before = descriptors()
    offer = host.offer(file)
    assert host.fetch()
    assert not (host.directory / NAME).exists()
    with pytest.raises(NoBodyError):
        body.fetch(host.directory, shown=False)
    offer.close()
    assert descriptors() == before
    assert host.refused == []


def test_an_offer_that_is_withdrawn_gives_nothing(host, file):
    before = descriptors()
    host.offer(file).close()
    assert not (host.directory / NAME).exists()
    assert descriptors() == before
    with pytest.raises(NoBodyError):
        body.fetch(host.directory, shown=False)


@pytest.mark.parametrize("shown", [False, True], ids=["no file", "jobs see their memory map"])
def test_a_runner_that_cannot_map_what_it_gets_or_must_not_says_so(host, file, shown):
    offer = host.offer(file if shown else "/dev/null")
    assert not host.fetch(shown=shown)
    assert host.refused == [1]
    offer.close()


def test_whatever_else_the_peer_says_is_no_refusal(host, file):
    offer = host.offer(file)
    with closing(socket.socket(socket.AF_UNIX)) as peer:
        peer.connect(str(host.directory / NAME))
        peer.sendall(b"x" * 1000)
        host.turn()
        host.turn()
    assert host.refused == []
    offer.close()


# ---- the child ----


@pytest.fixture
def taken(file):
    """The frames as a child has them."""
    with file.open("rb") as it:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            starts, _ = places([*map(len, FRAMES)])
            mapped = [(at, starts[at], len(FRAMES[at])) for at in (3, 5)]
            empty = [b"" if at in (3, 5) else frame for at, frame in enumerate(FRAMES)]
            pid = os.fork()
            if not pid:
                body.give(ours, it.fileno())
                os._exit(0)
            frames = body.take(theirs, mapped, empty)
            os.waitpid(pid, 0)
    return frames


def test_a_child_has_every_frame_as_it_was_sent(taken):
    assert [bytes(frame) for frame in taken] == FRAMES


def test_what_a_child_writes_to_a_frame_is_its_own(taken, file):
    before = file.read_bytes()
    taken[3][:] = bytes(len(LARGE))
    assert bytes(taken[3]) == bytes(len(LARGE))
    assert file.read_bytes() == before


def test_a_child_keeps_no_descriptor_of_the_file(taken, file):
    shown = [
        os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")
        if Path(f"/proc/self/fd/{number}").exists()
    ]
    assert str(file) not in shown
    assert taken[3].nbytes == len(LARGE)


def test_a_frame_that_is_dropped_gives_its_memory_back(taken, file):
    def maps():
        return Path("/proc/self/maps").read_text().count(str(file))

    assert maps() == 2
    del taken[3]
    assert maps() == 1


def test_a_child_whose_runner_is_gone_does_not_wait():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(OSError, match="Broken pipe"):
            body.take(theirs, [(0, 0, 1)], [b""])
