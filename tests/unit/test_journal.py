"""The journal's files and its thread, on real SQLite."""

import errno
import os
import queue
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pool.daemon import journal_bodies, journal_disk, journal_file
from pool.daemon.job_store import JobStore
from pool.daemon.journal_entries import KNOWN_SINCE, Accept, Collect, Drop, End, Lease, LeaseRow, SetFact, Tidy
from pool.daemon.journal_file import INLINE_BYTES, SCHEMA, JournalFile
from pool.daemon.journal_writer import FileJournal
from pool.daemon.recovery import read_past
from pool.errors import ConfigError, PoolError, StorageFullError
from tests.support.waiting import eventually


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def open_file(directory):
    opened = []

    def open_it(*, fsync=False):
        opened.append(JournalFile(directory, fsync=fsync))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def accept(number, payload=(b"code", b""), key=None, *, lease=None):
    return Accept(number, key or f"1000/job-{number}", "default", b"digest", b"header", payload, 10.0 + number, lease)


class Loop:
    """Runs on the test's thread what the journal has the loop call, and flushes the journal after each turn."""

    def __init__(self):
        self._calls = queue.SimpleQueue()
        self.call_soon = self._calls.put
        self.flush = lambda: None

    def until(self, condition, timeout=120):
        deadline = time.monotonic() + timeout
        while self.flush() or not condition():
            self._calls.get(timeout=max(0, deadline - time.monotonic()))()


def test_a_job_is_read_again_with_its_lease_and_its_result(open_file):
    file = open_file()
    file.commit([accept(1), accept(2), Lease(2, LeaseRow(6, 1, "default-1", 20.0)), accept(3)])
    file.commit([Lease(2, LeaseRow(7, 2, "default-2", 20.5))])
    file.commit([Lease(3, LeaseRow(8, 1, "default-1", 21.0)), End(3, b"result", (b"out", b"", b"", b"value"), 30.0)])
    file.close()
    first, second, third = open_file().rows()
    assert (first.number, first.key, first.pool, first.accepted_at) == (1, "1000/job-1", "default", 11.0)
    assert (first.header, first.digest, list(first.payload)) == (b"header", b"digest", [b"code", b""])
    assert first.lease is None
    assert first.result is None
    assert second.lease == LeaseRow(7, 2, "default-2", 20.5)
    assert (third.result, list(third.payload), third.ended_at) == (b"result", [b"out", b"", b"", b"value"], 30.0)


def test_a_job_is_written_with_the_lease_that_it_has_already(open_file):
    lease = LeaseRow(7, 1, "default-1", 20.0)
    file = open_file()
    file.commit([accept(1, lease=lease)])
    file.close()
    (row,) = open_file().rows()
    assert row.lease == lease


def test_large_frames_are_in_a_file_that_goes_with_the_job(open_file, directory):
    file, large = open_file(), os.urandom(3 * INLINE_BYTES)
    file.commit([accept(1, (b"code", large, b""))])
    assert [path.name for path in (directory / "bodies").iterdir()] == ["1.job"]
    file.close()
    file = open_file()
    (row,) = file.rows()
    assert [bytes(frame) for frame in row.payload] == [b"code", large, b""]
    file.commit([End(1, b"result", (b"", large), 1.0)])
    assert [path.name for path in (directory / "bodies").iterdir()] == ["1.result"]
    file.commit([Drop(1)])
    assert list((directory / "bodies").iterdir()) == []
    assert list(file.rows()) == []


def test_a_body_that_is_written_again_is_counted_once(open_file):
    file, large = open_file(), bytes(3 * INLINE_BYTES)
    file.commit([accept(1), End(1, b"result", (large,), 1.0)])
    written = file.size_bytes()
    file.commit([End(1, b"result", (large,), 1.0)])
    assert file.size_bytes() == written
    file.commit([End(1, b"result", (b"",), 1.0), Drop(1)])
    assert file.size_bytes() <= written - len(large)


def test_a_body_whose_job_was_never_committed_is_removed(open_file, directory):
    open_file().close()
    (directory / "bodies" / "5.job").write_bytes(b"x" * 100)
    assert list(open_file().rows()) == []
    assert list((directory / "bodies").iterdir()) == []


def test_a_truncated_body_is_reported_as_damaged(open_file, directory):
    file = open_file()
    file.commit([accept(1, (b"code", bytes(2 * INLINE_BYTES))), accept(2)])
    os.truncate(directory / "bodies" / "1.job", INLINE_BYTES)
    first, second = file.rows()
    assert first.payload is None
    assert list(second.payload) == [b"code", b""]


def test_a_transaction_that_fails_leaves_nothing(open_file, directory):
    file = open_file()
    with pytest.raises(sqlite3.IntegrityError):
        file.commit([accept(1, (bytes(2 * INLINE_BYTES),)), accept(2), accept(2)])
    assert list((directory / "bodies").iterdir()) == []
    assert list(file.rows()) == []
    file.commit([accept(2)])


def test_a_lease_or_result_of_a_job_that_was_not_written_is_not_written_either(open_file):
    file = open_file()
    file.commit([Lease(9, LeaseRow(1, 1, "default-1", 0.0)), End(9, b"result", (), 0.0)])
    assert list(file.rows()) == []


def test_a_journal_of_an_older_schema_is_migrated(open_file, directory, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(journal_file, "_MIGRATIONS", journal_file._MIGRATIONS[:1])
        older.setattr(journal_file, "SCHEMA", 1)
        file = open_file()
        for number in (1, 2):
            values = (number, f"1000/job-{number}", "default", b"digest", b"header", bytes(4), 10.0)
            file.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        file.execute("INSERT INTO lease VALUES (2, 7, 1, 'default-1', 20.0)", ())
        file.execute("INSERT INTO result VALUES (1, x'00', x'00000000', 5.0)", ())
        file.close()
    file = open_file()
    assert [row.collected for row in file.rows()] == [False, False]
    assert [row.lease for row in file.rows()] == [None, LeaseRow(7, 1, "default-1", 20.0)]
    file.commit([Collect([1])])
    assert [row.collected for row in file.rows()] == [True, False]


def test_facts_are_kept(open_file):
    file = open_file()
    assert file.fact("workers:default") == 0
    file.commit([SetFact("workers:default", 12)])
    era = file.new_era()
    file.close()
    file = open_file()
    assert file.fact("workers:default") == 12
    assert file.new_era() > era


def test_jobs_are_known_since_the_journal_began_to_be_that_of_each_daemon_of_the_run_directory(open_file):
    file, began = open_file(), time.monotonic_ns()
    first = read_past(file, (), last="").known_since_ns
    name = file.name
    file.close()
    file = open_file()
    assert file.name == name
    assert read_past(file, (), last=name).known_since_ns == first >= began
    assert read_past(file, (), last="another").known_since_ns > first


def test_a_result_that_is_dropped_moves_the_time_since_which_jobs_are_known():
    written = []
    journal = SimpleNamespace(durable=True, write=lambda operation, _: written.append(operation))
    store = JobStore(journal, None, ttl_s=60, max_bytes=1, known_since_ns=1)
    store.drop(7, received_ns=1)
    assert written == [Drop(7)]
    store.drop(8, received_ns=2)
    store.drop(9, received_ns=3)
    assert written[1:] == [SetFact(KNOWN_SINCE, store.known_since_ns), Drop(8), Drop(9)]
    store.drop(10, received_ns=(received := time.monotonic_ns()))
    assert received <= store.known_since_ns <= time.monotonic_ns()
    assert written[-2:] == [SetFact(KNOWN_SINCE, store.known_since_ns), Drop(10)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database at all" * 1000),
        lambda path: os.truncate(path, 5000),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(8192)),
    ],
    ids=["garbage", "truncated", "overwritten"],
)
def test_a_journal_that_cannot_be_read_is_set_aside(open_file, directory, damage):
    file = open_file()
    file.commit([accept(number) for number in range(1, 50)])
    file.close()
    damage(directory / "journal.db")
    file = open_file()
    assert list(file.rows()) == []
    assert file.set_aside is not None
    assert file.set_aside.name.startswith("journal.corrupt-")
    assert (file.set_aside / "journal.db").exists()


@pytest.mark.parametrize("raised", [sqlite3.DatabaseError("malformed"), journal_file.ForeignJournal("damaged")])
def test_a_journal_that_could_not_be_read_for_a_moment_is_not_set_aside(open_file, directory, monkeypatch, raised):
    """SQLite reports a failed read as damage, too."""
    first = open_file()
    first.commit([accept(1)])
    first.close()
    real, failures = JournalFile._prepare, [raised]

    def prepare(file, connection):
        if failures:
            raise failures.pop()
        real(file, connection)

    monkeypatch.setattr(JournalFile, "_prepare", prepare)
    second = open_file()
    assert second.set_aside is None
    assert [row.number for row in second.rows()] == [1]
    assert os.listdir(directory.parent) == ["journal"]


def test_a_journal_whose_disk_does_not_give_it_is_left_where_it_is(open_file, directory, monkeypatch):
    first = open_file()
    first.close()
    (directory / "journal.db").write_bytes(b"no database " * 1000)

    def unreadable(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(journal_file, "read_all", unreadable)
    with pytest.raises(ConfigError, match="Input/output error"):
        open_file()
    assert os.listdir(directory.parent) == ["journal"]


def test_a_database_without_content_whose_log_has_some_is_set_aside_and_not_begun_anew(open_file, directory):
    """As after `> journal.db` under a daemon, which was then killed."""
    first = open_file()
    first.commit([accept(1)])
    log = (directory / "journal.db-wal").read_bytes()
    first.close()
    (directory / "journal.db").write_bytes(b"")
    (directory / "journal.db-wal").write_bytes(log)
    assert open_file().set_aside is not None


def test_a_body_that_cannot_be_opened_for_want_of_descriptors_is_not_taken_for_damaged(open_file, monkeypatch):
    file = open_file()
    file.commit([accept(1, (b"code", bytes(INLINE_BYTES)))])

    def refused(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(journal_bodies.mmap, "mmap", refused)
    with pytest.raises(OSError, match="Too many open files"):
        list(file.rows())


def test_a_body_that_cannot_be_mapped_under_a_running_daemon_stays_in_memory(start, loop, monkeypatch):
    journal, frames, done = start(), (b"code", bytes(INLINE_BYTES)), []
    journal.write(accept(1, frames), done.append)
    loop.until(lambda: done)

    def refused(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(journal_bodies.mmap, "mmap", refused)
    assert journal.payload(1, frames) is frames


def by_truncation(directory):
    os.truncate(directory / "journal.db", 0)


def by_a_copy_in_its_place(directory):
    content = (directory / "journal.db").read_bytes()
    (directory / "journal.db").write_bytes(content)


def by_another_page(directory):
    with (directory / "journal.db").open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


def by_truncation_of_its_log(directory):
    os.truncate(directory / "journal.db-wal", 0)


def by_removal_of_its_log(directory):
    (directory / "journal.db-wal").unlink()


@pytest.mark.parametrize(
    "harm", [by_truncation, by_a_copy_in_its_place, by_another_page, by_truncation_of_its_log, by_removal_of_its_log]
)
def test_files_that_another_program_changes_are_noticed(start, loop, directory, harm):
    """After a checkpoint, which changes them rightly."""
    journal = start()
    done = []
    for number in range(1100):
        journal.write(accept(number), done.append)
        loop.flush()
    for number in range(1101, 1103):  # the second one comes after the work of the first
        journal.write(Tidy(), done.append)
        loop.until(lambda number=number: len(done) == number)
    journal.look()
    assert journal.trouble is None
    harm(directory)
    eventually(lambda: journal.look() or journal.trouble is not None)
    assert "so no job can be accepted; start the daemon again" in journal.trouble.error.message


def test_the_database_of_another_program_is_set_aside(open_file, directory):
    directory.mkdir()
    other = sqlite3.connect(directory / "journal.db")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    file = open_file()
    assert (file.set_aside / "journal.db").exists()
    file.commit([accept(1)])


def test_a_newer_schema_is_refused_with_what_to_do(open_file, directory):
    open_file().close()
    newer = sqlite3.connect(directory / "journal.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(
        ConfigError, match=rf"newer version .*schema 99; this one reads up to {SCHEMA}.*start that version again"
    ):
        open_file()


def test_times_are_shifted_by_the_wall_clock_after_a_restart_of_the_host(open_file, monkeypatch, tmp_path):
    file = open_file()
    file.commit([accept(1), End(1, b"result", (), 100.0)])
    file.close()
    boot = tmp_path / "boot"
    boot.write_text("another-boot\n")
    monkeypatch.setattr(journal_file, "_BOOT_ID", boot)
    real = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: real - 1000.0)  # the host was up for 1000 s less
    (row,) = open_file().rows()
    assert row.ended_at == pytest.approx(-900.0, abs=5)
    assert row.accepted_at == pytest.approx(-989.0, abs=5)


def test_times_stay_when_only_the_daemon_was_restarted_even_if_the_wall_clock_jumped(open_file, monkeypatch):
    file = open_file()
    file.commit([accept(1), End(1, b"result", (), 100.0)])
    file.close()
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + 3600.0)
    (row,) = open_file().rows()
    assert (row.accepted_at, row.ended_at) == (11.0, 100.0)


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot use the journal in .*/journal: .*durability"):
        JournalFile(tmp_path / "journal", fsync=False)


def test_what_was_committed_survives_kill_9(directory):
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.unit.test_journal import accept\n"
        "from pool.daemon.journal_file import JournalFile\n"
        "file = JournalFile(Path(sys.argv[1]), fsync=False)\n"
        "[file.commit([accept(number)]) for number in range(1, 201)]\n"
        "file.execute('BEGIN', ()); accept(201).apply(file); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(directory)], check=False, timeout=60)
    assert ended.returncode == -9
    file = JournalFile(directory, fsync=False)
    assert [row.number for row in file.rows()] == list(range(1, 201))
    file.close()


# ---- the thread ----


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def start(open_file, loop):
    started = []

    def start_it(file=None, *, max_bytes=1 << 30):
        started.append(FileJournal(file or open_file(), max_bytes=max_bytes, call_soon=loop.call_soon))
        loop.flush = started[-1].flush
        return started[-1]

    yield start_it
    for each in started:
        each.close()


@pytest.mark.parametrize("fsync", [False, True], ids=["crash", "power"])
def test_what_follows_from_a_write_is_called_after_it_and_in_order(start, loop, open_file, fsync):
    journal, seen = start(open_file(fsync=fsync)), []
    for number in range(1, 1500):
        payload = (bytes(2 * INLINE_BYTES if number % 400 == 0 else 10),)  # a large one is left to the thread
        journal.write(accept(number, payload), lambda error, number=number: seen.append((number, error)))
    loop.until(lambda: journal.idle)
    assert seen == [(number, None) for number in range(1, 1500)]
    journal.close()
    assert [row.number for row in open_file().rows()] == list(range(1, 1500))


def test_what_one_turn_of_the_loop_leads_to_is_written_in_one_transaction_also_what_follows_later(start, directory):
    file, seen = Disk(directory, fsync=False), []
    journal = start(file)
    journal.write(accept(1), lambda _: journal.write(Lease(1, LeaseRow(7, 1, "default-1", 20.0)), seen.append))
    journal.write(accept(2), seen.append)
    assert (file.groups, seen, journal.idle) == ([], [], False), "nothing is written or follows before the turn is over"
    journal.flush()
    assert (file.groups, seen, journal.idle) == ([["Accept", "Accept"], ["Lease"]], [None, None], True)


class Disk(JournalFile):
    """A journal whose disk can be full, or broken."""

    error = None
    only = ""  #: the kind of operation that has no room; "": every one

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.groups = []  #: the kinds of operations of each transaction

    def commit(self, operations):
        if self.error is not None and any(self.only in type(each).__name__ for each in operations):
            raise self.error
        super().commit(operations)
        self.groups.append([type(each).__name__ for each in operations])


def full():
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def test_on_a_full_disk_jobs_are_refused_and_results_go_on_and_are_written_later(start, loop, directory, open_file):
    file, seen = Disk(directory, fsync=False), []
    journal = start(file)
    journal.write(accept(1), seen.append)
    loop.until(lambda: seen == [None])
    file.error = full()
    journal.write(accept(2), seen.append)
    journal.write(End(1, b"result", (b"value",), 5.0), seen.append)
    loop.until(lambda: len(seen) == 3 and journal.trouble is not None)
    refusal, ended = seen[1:]
    assert isinstance(refusal, StorageFullError)
    assert refusal.fields["directory"] == str(directory)
    assert str(directory) in refusal.message
    assert ended is None, "the result is served from memory"
    file.error = None
    loop.until(lambda: journal.trouble is None)
    journal.close()
    (row,) = open_file().rows()
    assert (row.number, row.result) == (1, b"result")


def test_a_full_quota_which_sqlite_takes_for_a_failed_write_is_a_full_disk(start, loop, directory, monkeypatch):
    file, seen = Disk(directory, fsync=False), []
    journal = start(file)
    file.error = sqlite3.OperationalError("disk I/O error")
    file.error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE

    def over_quota(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(journal_disk, "write_all", over_quota)
    journal.write(accept(1), seen.append)
    loop.until(lambda: seen and journal.trouble is not None)
    assert isinstance(seen[0], StorageFullError)
    file.error = None
    loop.until(lambda: journal.trouble is None)
    assert os.listdir(directory / "bodies") == []


def test_a_job_that_has_no_room_is_refused_where_a_probe_has_some(start, loop, directory, open_file):
    """As a large one on a disk that is almost full. What was written together with it is refused, or written alone."""
    file, seen = Disk(directory, fsync=False), []
    journal = start(file)
    journal.write(accept(1), seen.append)
    loop.until(lambda: seen == [None])
    file.error, file.only = full(), "Accept"
    journal.write(accept(2), seen.append)
    journal.write(End(1, b"result", (b"value",), 5.0), seen.append)
    loop.until(lambda: len(seen) == 3)
    assert isinstance(seen[1], StorageFullError)
    assert seen[2] is None
    file.error = None
    journal.write(accept(3), seen.append)
    loop.until(lambda: len(seen) == 4)
    assert seen[3] is None
    journal.close()
    assert [(row.number, row.result) for row in open_file().rows()] == [(1, b"result"), (3, None)]


@pytest.mark.parametrize("fsync", [False, True], ids=["crash", "power"])
def test_a_failed_write_other_than_a_full_disk_ends_the_daemon_and_is_not_tried_again(start, loop, directory, fsync):
    file = Disk(directory, fsync=fsync)
    journal, seen = start(file), []
    file.error = sqlite3.OperationalError("disk I/O error")
    file.error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def write():
        journal.write(accept(1), seen.append)
        loop.until(lambda: False)

    with pytest.raises(PoolError, match=r"cannot be written: disk I/O error\. The daemon ends"):
        write()
    assert seen == []


def test_a_journal_over_its_bound_takes_no_new_jobs(start, loop, monkeypatch):
    monkeypatch.setattr("pool.daemon.journal_writer._MEASURE_S", 0.0)
    journal, seen = start(max_bytes=1 << 20), []
    for number in range(1, 5):
        journal.write(accept(number, (bytes(1 << 19),)), seen.append)
    loop.until(lambda: journal.trouble is not None)
    assert "journal_bytes" in journal.trouble.error.message
    for number in range(1, 5):
        journal.write(Drop(number), seen.append)
    loop.until(lambda: journal.trouble is None)
    assert seen == [None] * 8
