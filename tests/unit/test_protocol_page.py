"""docs/protocol.md: its tables are those of the code, its vectors hold, and a client made from it alone works."""

import ast
import json
import re
import sys
from collections import Counter
from pathlib import Path

import msgpack
import pytest

from examples import bare_client
from examples.bare_client import BareClient
from pool import errors, values, wire
from tests.support.process import python
from tests.support.same import same
from tools import protocol, protocol_values

pytest_plugins = ["pool.pytest_plugin"]

PAGE = protocol.PAGE.read_text(encoding="utf-8")


def rows(block):
    """The rows of a table between the markers of a block: the text, and the frames."""
    lines = re.search(rf"<!-- generated: {block} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)[1].splitlines()[2:]
    for line in lines:
        first, last = line.strip("| ").rsplit(" | ", 1)
        yield first.strip("`"), [bytes.fromhex(each.strip("`")) for each in last.split(" then ")]


def test_the_tables_and_vectors_on_the_page_are_those_of_the_code():
    assert protocol.render(PAGE) == PAGE, "run: python -m tools.protocol"
    assert set(re.findall(r"<!-- generated: (\w+) -->", PAGE)) == set(protocol.BLOCKS)


def test_every_message_of_a_client_has_a_table_and_a_vector():
    documented = {*protocol.FROM_CLIENT, *protocol.TO_CLIENT}
    assert documented == {*wire.FromClient.__args__, *wire.ToClient.__args__, wire.AdminReply}
    assert {type(each) for each in protocol.MESSAGES} == documented


def test_the_headers_on_the_page_decode_to_what_is_written_beside_them():
    for text, (header,) in rows("message_vectors"):
        fields = json.loads(text)
        assert msgpack.unpackb(header) == fields
        decoder = wire.to_admin if fields["type"] == "reply" else wire.from_client
        if fields["type"] in {"accepted", "refused", "output", "result", "pong"}:
            decoder = wire.to_client
        message, payload = wire.decode(decoder, [wire.PREAMBLE, header])
        assert wire.encode(message, payload) == [wire.PREAMBLE, header]


def test_the_values_on_the_page_decode_and_encode_to_what_is_written_beside_them():
    found = list(rows("value_vectors"))
    for text, frames in found:
        expression, _, outside = text.partition("`, ")
        value = protocol_values.value_of(expression)
        assert same(values.decode(frames), value), text
        if not outside:
            assert [bytes(each) for each in values.encode(value, max_bytes=1 << 20)] == frames, text
    assert len(found) > 50


def test_the_values_that_the_page_calls_wrong_are_refused():
    found = list(rows("refused_vectors"))
    for what, frames in found:
        with pytest.raises(errors.ValueCodecError):
            print(what, values.decode(frames))
    assert len(found) > 5


def test_the_bare_client_has_nothing_of_the_project():
    tree = ast.parse(Path(bare_client.__file__).read_text(encoding="utf-8"))
    names = {each.module for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    names |= {alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"msgpack", "zmq"}


@pytest.fixture
def client(pool_endpoint):
    made = BareClient(pool_endpoint)
    yield made
    made.close()


def answer(client):
    """The next message, for which a busy machine has a minute."""
    for _ in range(60):
        if (found := client.receive()) is not None:
            return found
    raise AssertionError("no answer")


def test_a_client_made_from_the_page_alone_runs_jobs(client):
    header, (stdout, stderr, error, value) = client.run("def main(x, y): print('hi'); return x * y", "main", [6, 7])
    assert (header["outcome"], stdout, stderr, error, bare_client.decode(value)) == ("ok", b"hi\n", b"", b"", 42)
    header, (_, _, error) = client.run("def main(): return {}['k']", "main")
    assert (header["outcome"], msgpack.unpackb(error)["type"]) == ("error", "KeyError")
    header, _ = client.run("def main():\n    while True: pass", "main", limits={"wall_s": 0.3})
    assert header["outcome"] == "timeout"
    header, (_, _, _, value) = client.run("def main(): return (1, [2, (3,)])", "main")
    assert bare_client.decode(value) == (1, [2, (3,)])


def test_what_the_page_says_of_files_streams_and_graders_holds(client):
    code = b"open('out/o.txt', 'w').write(open('in.txt').read())\nprint('so')\nresult = 4"
    grader = b"def grade(value, expected): return value == expected"
    payload = [code, b"", b"text", grader, bare_client.encode(((4,), {}))]
    fields = {"files": ["in.txt"], "watch": True, "stream": True, "grade": {"entry": "grade", "arguments": 1}}
    client.send("submit", payload, request=1, job_id="files", **fields)
    kinds, printed = Counter(), b""
    while True:
        header, frames = answer(client)
        kinds[header["type"]] += 1
        if header["type"] == "output":
            assert header["offset"] == len(printed)
            printed += frames[0]
        if header["type"] == "result":
            break
    assert header["outcome"] == "ok", (header, frames)
    own, graded = frames[: -header["grade"]["frames"]], frames[-header["grade"]["frames"] :]
    stdout, _, error, kept, value = own
    assert (header["files"], kept, stdout, error, bare_client.decode(value)) == (["o.txt"], b"text", b"so\n", b"", 4)
    assert (header["grade"]["outcome"], graded[0], bare_client.decode(graded[1])) == ("ok", b"", True)
    assert printed in {b"", b"so\n"}
    assert kinds["accepted"] == 1


def test_what_the_page_says_of_ids_holds(client):
    client.send("submit", [b"result = 1", b""], request=1, job_id="same", watch=True)
    assert {answer(client)[0]["type"], answer(client)[0]["type"]} == {"accepted", "result"}
    client.send("submit", [b"result = 1", b""], request=2, job_id="same")
    assert answer(client)[0] == {"type": "accepted", "request": 2, "job_id": "same"}
    client.send("submit", [b"result = 2", b""], request=3, job_id="same")
    assert answer(client)[0]["code"] == "job_conflict"
    client.send("watch", request=4, job_id="same")
    assert [answer(client)[0]["type"], answer(client)[0]["type"]] == ["accepted", "result"]
    client.send("cancel", request=5, job_id="unknown")
    assert answer(client)[0]["code"] == "unknown_job"


def test_a_job_that_goes_on_is_accepted_while_it_runs(client):
    client.send("submit", [b"import time; time.sleep(600)", b""], request=1, job_id="long", watch=True)
    assert answer(client)[0] == {"type": "accepted", "request": 1, "job_id": "long"}
    client.send("cancel", request=2, job_id="long")
    assert [answer(client)[0].get("request"), answer(client)[0].get("outcome")] == [2, "cancelled"]


def test_what_the_page_says_of_refusals_holds(client, monkeypatch):
    client.send("ping", request=7, colour="red")
    header, _ = answer(client)
    assert (header["code"], header["request"]) == ("protocol_remote", 0)
    client.send("ping", request=7.0)
    assert answer(client)[0]["code"] == "protocol_remote"
    monkeypatch.setattr(bare_client, "PREAMBLE", b"WCP\x01")
    client.send("ping", request=8)
    monkeypatch.setattr(bare_client, "PREAMBLE", b"WCP\x02")
    header, _ = answer(client)
    assert (header["code"], header["request"], header["fields"]) == ("version_mismatch", 0, {"theirs": 1, "ours": 2})


def test_the_bare_client_says_where_it_looked_for_a_daemon(tmp_path):
    done = python(bare_client.__file__, "main", input="", env={"POOL_RUN_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (1, f"no daemon: {tmp_path}/submit.sock does not exist\n")


@pytest.mark.parametrize("variable", ["POOL_ENDPOINT", "POOL_RUN_DIR"])
def test_the_bare_client_is_a_command(pool_endpoint, variable):
    place = pool_endpoint if variable == "POOL_ENDPOINT" else str(Path(pool_endpoint.removeprefix("ipc://")).parent)
    environment = {variable: place, "PATH": "/usr/bin:/bin"}
    source = "def main(x): return x * 2"
    done = python(bare_client.__file__, "main", "21", input=source, env=environment)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["ok", "42"], "")
