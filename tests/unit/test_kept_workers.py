"""The notes of ready workers: what the next daemon reads of them, and what it does not."""

import errno
import os
import stat

import msgspec
import pytest

from pool.daemon.kept_workers import KeptWorker, KeptWorkers, new_token


@pytest.fixture
def kept(tmp_path):
    return KeptWorkers(tmp_path)


def worker(number=7, **facts):
    fields = {
        "worker_id": f"p-{number}", "instance": "i", "pool": "p", "number": number, "uid": 70_001, "token": new_token(),
        "template": "digest", "started_at": 12.5, "isolation": "namespaces", "missing": (), "rows": (),
    }  # fmt: skip
    return KeptWorker(**fields | facts)


def without_boot(notes):
    return [msgspec.structs.replace(each, boot="") for each in notes]


def test_a_note_is_read_as_it_was_written_last(kept, tmp_path):
    (tmp_path / "7").mkdir()
    kept.write(worker())
    last = worker(client="1000", missing=("user namespaces: EPERM",))
    kept.write(last)
    assert without_boot(kept.read()) == [last]


def test_a_note_is_for_the_daemon_only(kept, tmp_path):
    kept.write(worker())
    assert stat.S_IMODE((tmp_path / "7.json").stat().st_mode) == 0o600


def test_a_worker_cannot_reach_its_note_by_what_it_mounts(kept, tmp_path):
    (tmp_path / "7").mkdir()
    kept.write(worker())
    assert list((tmp_path / "7").iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"null", bytes(100), b'{"worker_id": "p-7"'])
def test_a_damaged_note_counts_as_none(kept, tmp_path, damage):
    (tmp_path / "7").mkdir()
    (tmp_path / "7.json").write_bytes(damage)
    assert list(kept.read()) == []


def test_a_note_of_another_boot_of_the_host_counts_as_none(kept, tmp_path):
    (tmp_path / "7").mkdir()
    kept.write(worker())
    note = tmp_path / "7.json"
    note.write_bytes(msgspec.json.encode(msgspec.json.decode(note.read_bytes()) | {"boot": "another"}))
    assert list(kept.read()) == []


def test_a_note_without_its_link_directory_counts_as_none(kept):
    kept.write(worker())
    assert list(kept.read()) == []


def test_links_and_notes_of_workers_that_are_gone_are_removed(kept, tmp_path):
    for number in (7, 8):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "link.sock").touch()
        kept.write(worker(number))
    kept.keep_only({8})
    assert {path.name for path in tmp_path.iterdir()} == {"8", "8.json"}


def test_tokens_differ():
    assert len({new_token() for _ in range(100)}) == 100


def test_a_note_that_cannot_be_removed_stops_nobody(kept, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.unlink", fails)
    kept.remove(7)


def test_a_disk_that_fails_while_links_are_removed_stops_nobody(kept, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "7").mkdir()
    with monkeypatch.context() as failing:
        failing.setattr("os.fstat", fails)  # rmtree compares what it has opened
        kept.keep_only(set())
    assert (tmp_path / "7").exists(), "the disk did not fail"
