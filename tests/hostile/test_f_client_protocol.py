"""Class F of the catalogue: peers that are no clients, clients that ask for too much, and clients of other users.

Each gets a typed answer or a closed connection. The daemon does not grow, and somebody else's next job is served.
"""

import contextlib
import errno
import os
import socket
import time
from random import Random

import msgspec
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from pool import values, wire
from pool.client import Client
from pool.core.events import JobSubmitted, Refuse
from pool.core.machine import PoolState
from pool.core.policy import PoolPolicy
from pool.daemon.job import Job
from pool.daemon.job_store import JobStore
from pool.daemon.journal import NoJournal
from pool.daemon.zmtp import commands
from pool.daemon.zmtp.listener import SUBMIT
from pool.errors import BacklogFullError, PoolError
from pool.model import Outcome
from tests.hostile.siege import (
    ALLOWED_GROWTH,
    GREETED,
    HONEST,
    MIB,
    SMALL,
    Besieged,
    as_user,
    ask,
    growth_of_libzmq,
    is_closed,
)
from tests.support.sockets import receive_exactly

OTHER_USER = 65534
NARROW = SMALL | {"size": {"min": 1, "max": 1}, "backlog": {"max_jobs": 20, "max_per_client": 4}}
ENV = SMALL | {"env_allow": ["FREE"]}
CODE = [HONEST.encode(), b""]
NO_ARGUMENTS = values.encode(((), {}), max_bytes=1000)

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


@pytest.fixture(scope="module")
def daemon():
    pools = {"default": SMALL, "narrow": NARROW, "env": ENV}
    with Besieged(pools, submit_mode="0666", result_ttl_s=15) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(daemon):
    with daemon.unharmed():
        yield


def refusal(daemon, header, *payload, decoder=wire.to_client, name="submit"):
    """The refusal of a message with such a header."""
    body = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    answer = ask(daemon, wire.PREAMBLE, body, *payload, name=name)
    assert answer is not None
    return wire.decode(decoder, answer)[0]


def submit(**fields):
    return {"type": "submit", "request": 1, "job_id": f"f-{time.monotonic_ns()}", "entry": "main"} | fields


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "zeros": bytes(4096),
    "random": Random(1).randbytes(4096),
    "zmtp 1": b"\x01\x00\x05\x00hello",
    "nothing": b"",
}


@pytest.mark.parametrize("name", ["submit", "admin"])
def test_f1_garbage_ends_its_connection_and_disturbs_nobody(daemon, record, name):
    job_id = daemon.submit("import time\ndef main(x):\n    time.sleep(0.5)\n    return x", 7)
    for words in GARBAGE.values():
        with daemon.raw(name) as sock:
            sock.sendall(words)
            if words:
                assert is_closed(sock), words[:20]
    assert daemon.result(job_id).value == 7
    record("F1", "HTTP, TLS and random bytes on the sockets", "DROP", stopped_by=["daemon"], seen=name)


def test_f2_no_greeting_and_no_ready_of_another_kind_gets_further(daemon, record):
    greetings = [commands.GREETING[:10] + bytes([version]) + commands.GREETING[11:] for version in range(3)]
    greetings += [
        commands.GREETING[:12] + mechanism.ljust(20, b"\0") + bytes(32) for mechanism in (b"CURVE", b"PLAIN", b"")
    ]
    readies = [b"\x04\x06\x05READ", b"\x04\x01\xff", b"\x04\x0b\x05READY\xffname", b"\x06" + b"\xff" * 8, b"\x00\x01x"]
    for words in greetings + [commands.GREETING + each for each in readies]:
        with daemon.raw() as sock, contextlib.suppress(BrokenPipeError):
            sock.sendall(words + bytes(100))
            assert is_closed(sock), words
    for version in range(3, 256, 36):
        with daemon.raw() as sock:
            sock.sendall(GREETED[:10] + bytes([version, version]) + GREETED[12:])
            assert receive_exactly(sock, 64) == commands.GREETING
    record("F2", "ZMTP greetings and commands of every other kind", "DROP", stopped_by=["daemon"])


def test_f3_a_peer_that_asks_for_a_security_mechanism_is_not_served_without_it(daemon, record):
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = public, public, secret
        monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        dealer.connect(daemon.endpoint)
        assert monitor.poll(60_000)
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        dealer.disable_monitor()
        monitor.close(linger=0)
    record("F3", "another security mechanism than the socket's", "DROP", stopped_by=["daemon"])


def test_f4_endless_parts_and_huge_frames_cost_their_connection(daemon, record):
    bare = growth_of_libzmq()
    assert bare > 90 * MIB, f"the attack does nothing to libzmq either: {bare}"
    attacks = {
        "parts": (b"\x01\xc8" + bytes(200)) * 3000,
        "empty parts": b"\x01\x00" * 200_000,
        "a huge frame": b"\x02" + (1 << 40).to_bytes(8) + bytes(1 << 20),
        "a huge command": b"\x06" + (1 << 40).to_bytes(8) + bytes(1 << 20),
        "two frames too large together": b"\x03"
        + (1 << 10).to_bytes(8)
        + bytes(1 << 10)
        + b"\x02"
        + (257 << 20).to_bytes(8),
    }
    for words in attacks.values():
        with daemon.raw() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(GREETED + words)
            assert is_closed(sock)
    record("F4", "messages without end or beyond size", "DROP", stopped_by=["daemon"],
           outside=f"a bare ROUTER with its caps set grew by {bare // MIB} MiB when we stopped")  # fmt: skip


def test_f4_unfinished_messages_of_one_user_are_capped_together_and_given_back(daemon, record):
    socks, before, most = [daemon.raw() for _ in range(5)], daemon.rss(), 0
    for sock in socks:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(GREETED + b"\x02" + (250 << 20).to_bytes(8))
            for _ in range(100):
                sock.sendall(bytes(MIB))
        most = max(most, daemon.rss())
    assert any(map(is_closed, (each for each in socks if not each.settimeout(0.2))))
    assert most - before < SUBMIT.incoming_each + ALLOWED_GROWTH
    for sock in socks:
        sock.close()
    record("F4", "many large messages that never end", "DROP", stopped_by=["daemon"], seen=f"{most // MIB} MiB at most")


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"WCP\x01"],
        [b"garbage", b"x"],
        [wire.PREAMBLE, b""],
        [wire.PREAMBLE, b"\xc1"],
        [wire.PREAMBLE, b"\x91" * 5000],
        [wire.PREAMBLE, b"\xdd\xff\xff\xff\xff"],
        [wire.PREAMBLE, b"\xff" * 70_000],
        [wire.PREAMBLE, b"\x80"] + [b""] * 1024,
        [wire.PREAMBLE, b'{"type": "ping"}'],
    ],
)
@pytest.mark.parametrize("name", ["submit", "admin"])
def test_f5_what_cannot_be_read_is_answered_with_a_typed_refusal(daemon, record, name, frames):
    message, _ = wire.decode(wire.to_client if name == "submit" else wire.to_admin, ask(daemon, *frames, name=name))
    assert message.code == "protocol_remote"
    record("F5", "malformed messages", "DROP", stopped_by=["daemon"], seen="a typed refusal")


def test_f6_a_submitter_cannot_administer(daemon, record):
    call = {"type": "call", "request": 1, "name": "drain", "arguments": {"pool": "default"}}
    assert refusal(daemon, call).code == "protocol_remote"
    assert os.stat(daemon.run_dir / "admin.sock").st_mode & 0o777 == 0o600
    record("F6", "administer through the submit socket", "DROP", stopped_by=["daemon"])


@as_root
def test_f6_f20_another_user_does_not_get_to_the_admin_socket(daemon, record):
    assert as_user(OTHER_USER, connecting, daemon.run_dir / "admin.sock") == errno.EACCES
    assert as_user(OTHER_USER, connecting, daemon.run_dir / "submit.sock") == 0
    record("F20", "another user at the admin socket", "ERR", stopped_by=["daemon"], seen="EACCES")


def connecting(path):
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path))


@as_root
def test_f7_nobody_sees_cancels_reads_or_fetches_a_job_of_another_user(daemon, record):
    job_id = daemon.submit("import time\ndef main(x):\n    print(x, flush=True)\n    time.sleep(0.7)\n    return x", 7)
    seen, own = as_user(OTHER_USER, reaching_for, daemon.endpoint, job_id)
    assert len(seen) == 6
    assert {code for code, _ in seen} == {"unknown_job"}
    assert len({message for _, message in seen}) == 1, "the answers tell whether there is such a job"
    assert own == 1
    assert daemon.result(job_id).value == 7
    record("F7", "a job of another user", "DROP", stopped_by=["daemon"], seen="as if there were none")


def reaching_for(endpoint, wanted):
    seen = []
    with Client(endpoint, timeout=120) as client:
        for act in (client.cancel, client.result, lambda job_id: list(client.stream(job_id))):
            for job_id in (wanted, "there-is-none"):
                try:
                    act(job_id)
                except PoolError as error:
                    seen.append([error.code, error.message.replace(job_id, "ID")])
        return seen, client.run("result = 1", job_id=wanted).value


def test_f9_the_same_submit_again_is_the_same_job_until_its_result_is_forgotten(daemon, record):
    code = b"import time\nresult = time.monotonic_ns()"
    frames = wire.encode(wire.Submit(request=1, job_id="captured"), [code, b"", *NO_ARGUMENTS])

    def submitted():
        return wire.decode(wire.to_client, ask(daemon, *frames))[0]

    assert submitted() == wire.Accepted(request=1, job_id="captured")
    first = daemon.result("captured").value
    assert submitted() == submitted() == wire.Accepted(request=1, job_id="captured")
    assert daemon.result("captured").value == first
    daemon.until(lambda: daemon.forgotten("captured"))
    submitted()
    assert daemon.result("captured").value > first
    record("F9", "replay of a submit", "INERT", stopped_by=["daemon"], seen="the same job while its result is kept")


@as_root
def test_f10_a_client_that_floods_the_queue_is_refused_with_an_error_and_others_are_served(daemon, record):
    taken, refused = as_user(OTHER_USER, flooding, daemon.endpoint)
    daemon.honest("narrow")
    assert 4 <= taken < 30
    assert min(refused) > 0
    record("F10", "flood the queue", "DROP", stopped_by=["daemon"], seen=f"{taken} of 30 were taken")


def flooding(endpoint):
    refused, taken = [], 0
    with Client(endpoint, timeout=120) as client:
        for _ in range(30):
            try:
                client.submit("import time; time.sleep(0.2)", pool="narrow")
                taken += 1
            except BacklogFullError as error:
                refused.append(error.fields["retry_after_s"])
    return taken, refused


def test_f10_the_unfinished_jobs_of_one_user_hold_so_much_memory_and_no_more(record):
    pool, large = PoolState("p", PoolPolicy()), bytes(200 * MIB)
    store = JobStore(NoJournal(), None, ttl_s=1, max_bytes=1)

    def submit(number, client="1"):
        job = Job(
            key=f"{client}/{number}",
            client=client,
            pool="p",
            received_ns=0,
            run=wire.Run(
                job_id=str(number), epoch=0, wall_s=1, cpu_s=1, memory=1, tmp=1, output=1, result=1, processes=1
            ),
            payload=[large],
            held_bytes=len(large),
        )
        held = {"size_bytes": job.held_bytes, "held_bytes": store.unfinished_bytes[client]}
        answer = pool.handle(JobSubmitted(job_id=job.key, client=client, wall_s=1, attachment=job, **held), 0.0)[0]
        if isinstance(answer, Refuse):
            raise answer.error
        store.accept(answer.attachment, None, lambda _: None)
        return job

    taken = [submit(number) for number in range(5)]
    with pytest.raises(BacklogFullError, match="hold") as caught:
        submit(6)
    assert caught.value.fields["retry_after_s"] > 0
    submit(1, "2")
    store.end(taken[0], wire.Result(job_id="0", outcome=Outcome.OK), ())
    submit(7)
    record("F10", "fill the memory with jobs that wait", "DROP", stopped_by=["daemon"])


def test_f11_a_job_whose_client_is_gone_runs_on_and_its_result_is_kept(daemon, record):
    job = wire.Submit(request=1, job_id="orphan", entry="main", watch=True)
    code = b"import time\ndef main():\n    time.sleep(0.3)\n    return 'done'"
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(daemon.endpoint)
        dealer.send_multipart(wire.encode(job, [code, b"", *NO_ARGUMENTS]))
        assert dealer.poll(60_000)
    assert daemon.result("orphan").value == "done"
    record("F11", "vanish while the job runs", "INERT", stopped_by=["daemon"])


ABSURD = {
    "no time": {"limits": {"wall_s": 0}},
    "less than no time": {"limits": {"wall_s": -1}},
    "not a number": {"limits": {"wall_s": float("nan")}},
    "endless": {"limits": {"wall_s": float("inf")}},
    "aeons": {"limits": {"wall_s": 1e308}},
    "no memory": {"limits": {"memory": 0}},
    "a pebibyte": {"limits": {"memory": 1 << 51}},
    "too much memory": {"limits": {"memory": 1 << 40}},
    "processes": {"limits": {"processes": 1 << 62}},
    "queue timeout": {"queue_timeout_s": float("nan")},
    "priority": {"priority": 1 << 40},
    "environment": {"env": {f"V{number}": "" for number in range(1000)}},
    "environment with NUL": {"pool": "env", "env": {"FREE": "a\0b"}},
    "environment not allowed": {"pool": "env", "env": {"FREE=\nLD_PRELOAD": "x"}},
    "seed": {"seed": -1},
    "long id": {"job_id": "x" * 129},
    "id with a slash": {"job_id": "../../x"},
    "id with an escape": {"job_id": "\x1b[2J"},
    "pool with a line end": {"pool": "x\n2026 [error] all is lost"},
}


@pytest.mark.parametrize("name", ABSURD)
def test_f13_f19_options_that_make_no_sense_are_refused_with_an_error(daemon, record, name):
    said = refusal(daemon, submit(**ABSURD[name]), *CODE)
    assert said.code in {"protocol_remote", "limit_exceeded", "invalid_job", "unknown_pool"}, said
    assert {char for char in daemon.log.read_text() if not char.isprintable()} <= {"\n"}
    record(
        "F13" if "a line" not in name else "F19",
        f"absurd options: {name}",
        "DROP",
        stopped_by=["daemon"],
        seen=said.code,
    )


@pytest.mark.parametrize("field", ["image", "mounts", "cap_add", "seccomp", "privileged", "runtime", "user", "sent_at"])
def test_f15_f18_fields_that_no_client_may_set_are_refused(daemon, record, field):
    assert refusal(daemon, submit(**{field: "x"}), *CODE).code == "protocol_remote"
    record("F15" if field != "sent_at" else "F18", f"the field {field} in a submit", "DROP", stopped_by=["daemon"])


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "a/../../x", "a/./b", "a//b", "/a/b", "a/", ".", "..", "a\0b", "a/\0", "é" * 128, ""],
)
def test_f16_a_file_of_a_job_has_a_relative_path_of_plain_names(daemon, record, path):
    assert refusal(daemon, submit(files=[path]), *CODE, b"content").code in {"invalid_job", "protocol_remote"}
    record("F16", f"the file name {path[:20]!r}", "DROP", stopped_by=["daemon"])


@as_root
def test_f20_a_user_outside_the_mode_of_the_socket_is_not_let_in(record):
    with Besieged({"default": SMALL}, submit_mode="0600") as private:
        assert as_user(OTHER_USER, connecting, private.run_dir / "submit.sock") == errno.EACCES
    record("F20", "another user at a submit socket of mode 0600", "ERR", stopped_by=["daemon"], seen="EACCES")
