"""Class E of the catalogue: a runner that was taken over, at the daemon's end of its link.

The worker here is a script that shakes hands and then misbehaves (tests/support/rogue_peer.py). It costs its own
container and the job it holds: the daemon does not grow, others are served, and the job ends once.
"""

import os
import signal
import time

import pytest

from pool.model import Limits, Outcome
from tests.hostile.siege import MIB, SMALL, Besieged, growth_of_libzmq
from tests.support.daemons import module_daemon
from tests.support.rogue_peer import HEADERS

# Its workers are rogue and its code is not, so what they do is not held against that.
ROGUE = SMALL | {"size": {"min": 1, "max": 1}, "heartbeat_s": 2, "poison": {"kills": 0}}
#: Time for an honest start on a busy machine too.
BOOT_S = 25
#: SMALL's limit of output.
CAP = 64 * 1024


daemon = module_daemon({"default": SMALL, "rogue": ROGUE}, engine="rogue", kind=Besieged)


@pytest.fixture(autouse=True)
def unharmed(daemon):
    with daemon.unharmed():
        yield


def lose(daemon, script):
    """Give such a worker a job: it is destroyed, and the job is lost and stays so; the history of the worker."""
    worker = daemon.leasable(script)
    job_id = daemon.submit(pool="rogue")
    result = daemon.result(job_id)
    assert (result.outcome, result.worker) == (Outcome.LOST, worker), result
    history = daemon.replaced(worker)
    assert daemon.result(job_id) == result
    return history


def end(daemon, script, *more):
    """Such a worker is destroyed without a job; its history."""
    return daemon.replaced(daemon.summon(script, *more))


@pytest.mark.parametrize("script", ["job_other_id", "job_other_epoch", "job_short_of_another_lease"])
def test_e2_a_result_of_another_job_or_lease_destroys_the_worker(daemon, record, script):
    assert "it sent Done" in lose(daemon, script)
    record("E2", "forged result for another job or lease", "QUAR", stopped_by=["daemon"], seen=script)


def test_e2_a_result_of_a_finished_job_destroys_the_worker(daemon, record):
    before = daemon.pool("rogue")["late_answers"]
    assert "it sent Done while it had no job" in end(daemon, "idle_done")
    assert daemon.pool("rogue")["late_answers"] == before + 1
    record("E2", "forged result for a finished job", "QUAR", stopped_by=["daemon"])


def test_e6_an_answer_whose_header_has_no_room_for_what_the_daemon_adds(daemon, record):
    assert "leave no room for the other fields" in lose(daemon, "job_a_header_of_the_largest_size")
    record("E6", "an answer whose header has no room for what the daemon adds", "QUAR", stopped_by=["daemon"])


@pytest.mark.parametrize(
    ("script", "sent", "title"),
    [
        ("job_two_results", "Done", "two results for one job"),
        ("job_start_after_result", "Started", "a job that starts after its result"),
    ],
)
def test_e3_what_comes_after_a_result_destroys_the_worker_and_the_result_counts(daemon, record, script, sent, title):
    worker = daemon.leasable(script)
    job_id = daemon.submit(pool="rogue")
    assert daemon.result(job_id).value == "first"
    assert f"it sent {sent} while it cleaned up" in daemon.replaced(worker)
    assert daemon.result(job_id).value == "first"
    record("E3", title, "QUAR", stopped_by=["daemon"], seen="the first one counted")


def test_e3_a_second_hello_destroys_the_worker(daemon, record):
    assert "it sent Hello while it had no job" in end(daemon, "idle_hello_again")
    record("E3", "a second handshake", "QUAR", stopped_by=["daemon"])


def test_e4_a_second_connection_to_a_link_is_not_let_in(daemon, record):
    worker = daemon.leasable("job_second_peer")
    result = daemon.run(pool="rogue")
    assert (result.outcome, result.value, result.reason) == (Outcome.OK, "honest", "")
    assert "second_peer" in daemon.log.read_text()
    daemon.call("recycle", pool="rogue")
    daemon.replaced(worker)
    record("E4", "speak for a worker on another connection", "DROP", stopped_by=["daemon"])


def test_e5_endless_multipart_costs_the_worker_and_not_the_daemon(daemon, record):
    bare = growth_of_libzmq()
    assert bare > 90 * MIB, f"the attack does nothing to libzmq either: {bare}"
    assert "frames" in lose(daemon, "job_endless_multipart")
    record("E5", "a message that never ends", "QUAR", stopped_by=["daemon"],
           outside=f"a bare ROUTER with its caps set grew by {bare // MIB} MiB when we stopped")  # fmt: skip


def test_e6_an_oversized_frame_is_refused_when_it_is_announced(daemon, record):
    assert "are allowed now" in end(daemon, "idle_oversized_frame")
    assert "are allowed now" in lose(daemon, "job_endless_frame")
    record("E6", "a frame larger than any answer", "QUAR", stopped_by=["daemon"])


def test_e6_a_worker_without_a_lease_may_send_little(daemon, record):
    assert "are allowed now" in end(daemon, "idle_large_message")
    record("E6", "a large message without a lease", "QUAR", stopped_by=["daemon"])


@pytest.mark.parametrize(
    ("script", "words"), [("idle_flood_of_beats", "heartbeats in"), ("idle_flood_of_pings", "PINGs and PONGs")]
)
def test_e7_a_flood_of_small_messages_destroys_the_worker_while_others_are_served(daemon, record, script, words):
    worker = daemon.summon(script)
    for _ in range(5):
        daemon.honest("default")
    assert words in daemon.replaced(worker)
    record("E7", "a flood of beats or pings", "QUAR", stopped_by=["daemon"], seen=script)


def test_e8_e9_no_header_that_is_not_exactly_right_is_taken(daemon, record):
    scripts = [f"idle_header:{name}" for name in HEADERS] + ["idle_other_version"]
    first = daemon.summon(*scripts)
    daemon.until(lambda: len(list(daemon.home.glob("rogue/*"))) == 0)
    number = int(first.rpartition("-")[2])
    last = f"rogue-{number + len(scripts) - 1}"
    daemon.until((daemon.home / f"taken-{last}").exists)
    daemon.replaced(last)
    for offset, script in enumerate(scripts):
        history = daemon.history(f"rogue-{number + offset}")
        assert "it broke the protocol" in history, (script, history)
        assert all(map(str.isprintable, history.split("\n"))), history
    record("E8", f"{len(HEADERS)} malformed msgpack headers", "QUAR", stopped_by=["daemon"])
    record("E9", "another protocol version, wrong, missing and unknown fields", "QUAR", stopped_by=["daemon"])


def test_e10_the_frames_of_an_old_lease_are_no_answer_to_a_new_one(daemon, record):
    worker = daemon.leasable("job_replay")
    assert daemon.run(pool="rogue").value == "first"
    result = daemon.run(pool="rogue")
    assert (result.outcome, result.worker) == (Outcome.LOST, worker)
    assert "epoch" in daemon.replaced(worker)
    record("E10", "replay an old answer", "QUAR", stopped_by=["daemon"])


@pytest.mark.parametrize(
    ("number", "script", "title"),
    [
        ("E11", "job_half_a_message", "a message that stops in the middle"),
        ("E13", "job_wedged", "ready and wedged"),
    ],
)
def test_a_worker_that_does_not_end_its_answer_or_begins_none_is_ended_at_the_jobs_deadline(
    daemon, record, number, script, title
):
    worker = daemon.leasable(script)
    result = daemon.run(pool="rogue", limits=Limits(wall_s=1))
    assert (result.outcome, result.worker) == (Outcome.TIMEOUT, worker)
    daemon.replaced(worker)
    record(number, title, "QUAR", stopped_by=["daemon"])


@pytest.mark.parametrize("script", ["job_exits", "job_half_a_result_and_exits"])
def test_a_worker_that_ends_at_the_dispatch_or_within_its_answer_is_noticed_long_before_the_jobs_deadline(
    daemon, script
):
    worker = daemon.leasable(script)
    result = daemon.run(pool="rogue", limits=Limits(wall_s=SMALL["limits"]["wall_s"]))
    assert (result.outcome, result.worker) == (Outcome.LOST, worker)
    assert "its end of the link was closed" in result.reason
    daemon.replaced(worker)


@pytest.mark.parametrize(
    ("script", "words"), [("boot_random_bytes", "greeting"), ("boot_no_hello", "had not sent Hello")]
)
def test_e11_what_is_no_handshake_is_a_failed_start(daemon, record, script, words):
    assert words in end(daemon, script)
    record("E11", "no handshake, or half of one", "QUAR", stopped_by=["daemon"], seen=script)


def test_e11_half_a_handshake_is_waited_for_until_the_boot_timeout(record):
    pools = {"default": SMALL, "rogue": ROGUE | {"boot_timeout_s": BOOT_S}}
    with Besieged(pools, engine="rogue") as impatient:
        assert f"not ready within {BOOT_S} s" in end(impatient, "boot_half_a_greeting")
    record("E11", "no handshake, or half of one", "QUAR", stopped_by=["daemon"], seen="boot_half_a_greeting")


def test_e12_figures_that_cannot_be_are_not_passed_on(daemon, record):
    worker = daemon.leasable("job_lies")
    began = time.monotonic()
    result = daemon.run(pool="rogue")
    wall_s = time.monotonic() - began
    assert (result.outcome, result.value) == (Outcome.OK, "value")
    assert result.usage.cpu_s <= 1 + wall_s * os.cpu_count()
    assert result.usage.max_rss_bytes == 256 * MIB
    assert 0 <= result.timings.run_ms <= result.timings.total_ms <= wall_s * 1000
    assert result.reason.isprintable()
    assert len(result.reason) <= 4096
    daemon.call("recycle", pool="rogue")
    daemon.replaced(worker)
    record("E12", "lies about processor time, memory and duration", "INERT", stopped_by=["daemon"])


def test_e14_text_of_a_worker_moves_no_cursor_and_ends_no_line(daemon, record):
    assert "\\x1b[2J" in end(daemon, "idle_last_words")
    worker = daemon.leasable("job_dirty_words")
    assert daemon.run(pool="rogue").outcome is Outcome.OK
    assert "\\x1b]0;owned" in daemon.replaced(worker)
    log = daemon.log.read_text()
    assert "pool is fine" in log
    assert {char for char in log if not char.isprintable()} == {"\n"}
    assert max(map(len, log.splitlines())) < 10_000
    record("E14", "escape sequences in what a worker says", "INERT", stopped_by=["daemon"])


def test_e15_what_is_planted_beside_a_link_is_not_followed(daemon, record):
    victim = daemon.home / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    end(daemon, "idle_links_elsewhere")
    assert (victim / "file").read_text() == "precious"
    record("E15", "links, fifos and files in place of the socket", "INERT", stopped_by=["daemon", "container"],
           seen="tried without the read-only mount")  # fmt: skip


def test_e16_descriptors_that_are_sent_along_are_not_taken(daemon, record):
    before = daemon.descriptors()
    assert "Done" in end(daemon, "idle_descriptors")
    assert daemon.descriptors() <= before + 20
    record("E16", "pass descriptors to the daemon", "INERT", stopped_by=["daemon"])


def test_e18_a_frozen_worker_is_suspected_and_replaced(daemon, record):
    worker = daemon.leasable("job_wedged")
    (frozen,) = (each["container"] for each in daemon.workers("rogue") if each["id"] == worker)
    os.kill(int(frozen.removeprefix("process-")), signal.SIGSTOP)
    history = daemon.replaced(worker)
    assert "heartbeats missed" in history or "is frozen" in history
    record("E18", "a worker that is stopped", "QUAR", stopped_by=["daemon"])


def test_e20_nothing_is_unpacked_on_the_way(daemon, record):
    worker = daemon.leasable("job_bomb")
    assert "cannot be decoded" in daemon.run(pool="rogue").error.message
    daemon.call("recycle", pool="rogue")
    daemon.replaced(worker)
    record("E20", "a compressed bomb as the value", "INERT", stopped_by=["daemon"])


def test_an_answer_cannot_name_files_outside(daemon):
    assert "file" in lose(daemon, "job_traversal")


# ---- what it says of its job's output: each lie costs the worker and its job ----


@pytest.mark.parametrize(
    ("script", "words", "heard_bytes"),
    [
        ("job_prints_of_another_job", "of job somebody-elses", 0),
        ("job_prints_of_another_lease", "it sent Printed of job", 0),
        ("job_prints_without_end", "limit of 65536 bytes", CAP),
        ("job_prints_at_another_place", "from byte 1 of stdout; the next byte is 3", 3),
        ("job_prints_nothing", "one frame of 1 to", 0),
        ("job_prints_too_much_at_once", "one frame of 1 to", 0),
        ("job_prints_crumbs", "times in", None),
        ("job_prints_what_it_then_denies", "differs from the output", 3),
    ],
)
def test_output_that_cannot_be_destroys_the_worker_and_what_was_heard_stays(daemon, script, words, heard_bytes):
    worker, heard = daemon.leasable(script), []
    result = daemon.run(pool="rogue", on_stdout=heard.append)
    assert (result.outcome, result.worker) == (Outcome.LOST, worker), result
    assert words in result.reason
    text = "".join(heard)
    assert text == result.stdout
    assert len(text) <= CAP
    assert heard_bytes in {None, len(text)}
    assert words in daemon.replaced(worker)


def test_output_that_nobody_asked_for_destroys_the_worker(daemon):
    worker = daemon.leasable("job_prints_unasked")
    result = daemon.run(pool="rogue")
    assert (result.outcome, result.stdout) == (Outcome.LOST, "")
    assert "nobody had asked for" in daemon.replaced(worker)


def test_output_after_the_answer_changes_nothing_and_destroys_the_worker(daemon):
    worker, heard = daemon.leasable("job_prints_after_its_end"), []
    result = daemon.run(pool="rogue", on_stdout=heard.append)
    assert (result.outcome, heard) == (Outcome.OK, [])
    assert "it sent Printed while it cleaned up" in daemon.replaced(worker)
