"""Data sets on the host: copies by digest, the watcher of the files, and the editions of a pool."""

import contextlib
import hashlib
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pool.daemon.datasets import DatasetCopies, DatasetWatcher, PinError, PoolDatasets, Problem, Report, stamp_of
from tests.support.process import threads


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_bytes(b"a,b\n1,2\n")
    return path


def replace(path, content):
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


# ---- copies ----


def test_a_pin_is_a_read_only_copy_by_digest(file, tmp_path):
    pin = DatasetCopies(tmp_path / "copies").pin(file)
    assert pin.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert pin.copy == tmp_path / "copies" / f"{pin.digest}.csv"
    assert pin.copy.read_bytes() == file.read_bytes()
    assert pin.copy.stat().st_mode & 0o777 == 0o444
    assert (pin.path, pin.size_bytes, pin.stamp, pin.copied) == (file, 8, stamp_of(file), stamp_of(pin.copy))


def test_a_copy_does_not_change_when_its_file_does(file, tmp_path):
    pin = DatasetCopies(tmp_path / "copies").pin(file)
    file.write_bytes(b"other")
    assert pin.copy.read_bytes() == b"a,b\n1,2\n"
    file.unlink()
    assert pin.copy.read_bytes() == b"a,b\n1,2\n"


def test_a_file_that_has_not_changed_is_not_read_again(file, tmp_path, monkeypatch):
    copies = DatasetCopies(tmp_path / "copies")
    pin = copies.pin(file)
    monkeypatch.setattr(DatasetCopies, "_digest", lambda *_: pytest.fail("it was read"))
    assert copies.pin(file) == pin


def test_a_copy_of_an_earlier_daemon_is_used(file, tmp_path):
    copy = DatasetCopies(tmp_path / "copies").pin(file).copy
    before = copy.stat().st_ino
    assert DatasetCopies(tmp_path / "copies").pin(file).copy.stat().st_ino == before


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(kind, tmp_path):
    """Whoever may write to its directory can put it there. A fifo held the daemon up for ever, also its end."""
    path = tmp_path / "prices.csv"
    {"fifo": os.mkfifo, "device": lambda it: it.symlink_to("/dev/zero"), "directory": Path.mkdir}[kind](path)
    copies = DatasetCopies(tmp_path / "copies", halted=lambda: pytest.fail("it was read"))
    with ThreadPoolExecutor(1) as thread:
        pinning = thread.submit(copies.pin, path)
        try:
            with pytest.raises(PinError, match=r"is no plain file|Is a directory"):
                pinning.result(30)
        finally:
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # lets the thread go on


def test_a_copy_that_is_not_whole_is_made_again(file, tmp_path):
    copy = DatasetCopies(tmp_path / "copies").pin(file).copy
    copy.chmod(0o644)
    copy.write_bytes(b"a,")
    assert DatasetCopies(tmp_path / "copies").pin(file).copy.read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("later", [False, True])
def test_a_copy_of_the_right_size_with_another_content_is_made_again(file, tmp_path, later):
    copies = DatasetCopies(tmp_path / "copies")
    copy = copies.pin(file).copy
    copy.chmod(0o644)
    copy.write_bytes(b"b,a\n2,1\n")
    pin = (DatasetCopies(tmp_path / "copies") if later else copies).pin(file)
    assert (copy.read_bytes(), pin.copied) == (b"a,b\n1,2\n", stamp_of(copy))


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_file_that_changes_while_it_is_read_is_not_pinned(file, tmp_path, monkeypatch, blocks):
    copies, read_block, taken = DatasetCopies(tmp_path / "copies"), DatasetCopies._read_block, []

    def slow(self, source):
        if len(taken) == blocks:
            file.write_bytes(b"x" * 100)
            os.utime(file, ns=(1, 1))
        taken.append(1)
        return read_block(self, source)

    monkeypatch.setattr(DatasetCopies, "_read_block", slow)
    with pytest.raises(PinError, match="changed while it was read"):
        copies.pin(file)


def test_the_error_for_a_file_that_cannot_be_copied_names_file_and_directory(file, tmp_path):
    with pytest.raises(PinError, match=r"missing\.csv cannot be read and copied to .*copies: No such file"):
        DatasetCopies(tmp_path / "copies").pin(tmp_path / "missing.csv")
    (tmp_path / "no-directory").write_text("")
    with pytest.raises(PinError, match="no-directory"):
        DatasetCopies(tmp_path / "no-directory").pin(file)


def test_a_stop_does_not_wait_for_the_end_of_a_file(file, tmp_path):
    with pytest.raises(PinError, match="stopping"):
        DatasetCopies(tmp_path / "copies", halted=lambda: True).pin(file)
    assert not (tmp_path / "copies").exists()


def test_prune_removes_all_other_copies(file, tmp_path):
    copies = DatasetCopies(tmp_path / "copies")
    old = copies.pin(file).copy
    replace(file, b"other")
    new = copies.pin(file).copy
    (tmp_path / "copies" / "left.csv.partial").write_text("")
    copies.prune({new})
    assert list((tmp_path / "copies").iterdir()) == [new] != [old]


# ---- the watcher ----


@pytest.fixture
def reports(monkeypatch):
    monkeypatch.setattr("pool.daemon.datasets.POLL_S", 0.02)
    monkeypatch.setattr("pool.core.editions.SETTLE_S", 0.1)
    monkeypatch.setattr("pool.core.editions.RETRY_S", 0.1)
    return queue.SimpleQueue()


@pytest.fixture
def watcher(file, tmp_path, reports):
    watcher = DatasetWatcher([file], tmp_path / "copies", reports.put)
    watcher.start()
    yield watcher
    watcher.close()


def until(reports, condition):
    while not condition(report := reports.get(timeout=120)):
        pass
    return report


def test_the_first_report_has_a_pin_of_every_file(watcher, reports, file):
    assert reports.get(timeout=120).pins[file].copy.read_bytes() == b"a,b\n1,2\n"


def test_a_file_that_is_replaced_or_written_over_gets_another_pin(watcher, reports, file):
    first = reports.get(timeout=120).pins[file].digest
    replace(file, b"by rename")
    second = until(reports, lambda report: report.pins[file].digest != first).pins[file]
    assert second.copy.read_bytes() == b"by rename"
    file.write_bytes(b"in place!")  # the watcher may find it empty before
    third = hashlib.sha256(b"in place!").hexdigest()
    until(reports, lambda report: report.pins[file].digest == third)


def test_a_removed_file_is_a_problem_until_it_is_back_and_keeps_its_pin(watcher, reports, file):
    pin = reports.get(timeout=120).pins[file]
    file.rename(file.with_suffix(".away"))
    report = until(reports, lambda report: report.problems)
    assert report.problems[file].text == f"{file} is gone; put it back"
    assert report.pins[file] == pin
    file.with_suffix(".away").rename(file)
    assert until(reports, lambda report: not report.problems).pins[file] == pin


def test_a_file_that_cannot_be_read_is_a_problem_until_it_can(watcher, reports, file):
    reports.get(timeout=120)
    file.unlink()
    file.mkdir()
    assert "Is a directory" in until(reports, lambda report: report.problems.get(file, ("",))[0]).problems[file].text
    file.rmdir()
    file.write_bytes(b"a file again")
    until(reports, lambda report: not report.problems and report.pins[file].size_bytes == 12)


def test_copies_are_removed_when_the_loop_has_seen_their_report_and_does_not_keep_them(watcher, reports, file):
    old = reports.get(timeout=120).pins[file].copy
    replace(file, b"other")
    report = until(reports, lambda report: report.pins[file].copy != old)
    assert old.exists()
    while old.exists():
        watcher.keep(report.number, {report.pins[file].copy})
        report = reports.get(timeout=120)
    assert report.pins[file].copy.exists()


def test_without_data_sets_there_is_no_thread(tmp_path):
    before = threads()
    watcher = DatasetWatcher([], tmp_path, lambda _: pytest.fail("nothing to report"))
    watcher.start()
    assert threads() <= before
    watcher.close()


# ---- editions ----


@pytest.fixture
def pins(tmp_path):
    def make(content, name="prices"):
        path = tmp_path / f"{name}.csv"
        path.write_text(content)
        return DatasetCopies(tmp_path / "copies").pin(path)

    return make


def report(*pins, problems=None):
    return Report(1, {pin.path: pin for pin in pins}, problems or {})


def test_there_is_an_edition_when_every_data_set_has_a_pin_and_a_new_one_when_a_pin_changes(pins):
    one, two = pins("1", "one"), pins("2", "two")
    datasets = PoolDatasets({"one": one.path, "two": two.path})
    assert datasets.newest == 0
    assert not datasets.update(report(one))
    assert datasets.update(report(one, two))
    assert not datasets.update(report(one, two))
    again = pins("3", "two")
    assert datasets.update(report(one, again))
    assert (datasets.newest, datasets.of(1), datasets.of(2)) == (
        2,
        {"one": one, "two": two},
        {"one": one, "two": again},
    )


def test_a_file_with_a_new_time_and_the_same_content_makes_no_edition(pins):
    pin = pins("1")
    datasets = PoolDatasets({"prices": pin.path})
    datasets.update(report(pin))
    os.utime(pin.path, ns=(1, 1))
    assert not datasets.update(report(pins("1")))


def test_trim_forgets_editions_with_their_copies(pins):
    kept = [pins(str(number)) for number in range(4)]
    datasets = PoolDatasets({"prices": kept[0].path})
    for pin in kept:
        datasets.update(report(pin))
    datasets.trim({2})
    assert set(datasets.copies()) == {kept[1].copy, kept[3].copy}
    assert datasets.of(1) == {}


def test_problems_are_listed_by_data_set(pins):
    pin = pins("1")
    datasets = PoolDatasets({"prices": pin.path})
    problem = Problem("it is gone", 1.0)
    datasets.update(report(pin, problems={pin.path: problem, Path("/other"): problem}))
    assert datasets.problems == {"prices": problem}


def test_a_pool_without_data_sets_has_an_edition_at_once():
    assert (PoolDatasets({}).newest, PoolDatasets({}).update(report())) == (1, False)
