"""Files that a job leaves in its output directory come back by name; no name leads outside."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner import output_files, warmup
from runner.channel import Answer, file_names
from runner.program import Setting

from pool import wire
from pool.errors import ValueCodecError
from pool.model import Limits, Outcome
from pool.screen import Policy
from tests.support.daemons import module_daemon, pool_of

daemon = module_daemon({"default": pool_of(1, limits={"wall_s": 20, "result": "1m"})})


def collected(directory, *, most=1 << 20):
    frames = [bytes(frame) for frame in output_files.collect(directory, max_bytes=most)]
    return dict(zip(frames[0::2], frames[1::2], strict=True))


def test_whatever_a_job_leaves_comes_back_by_its_relative_name(client):
    result = client.run(
        "import os\n"
        "os.makedirs('out/plots/daily')\n"
        "open('out/plots/daily/a.txt', 'w').write('plot')\n"
        "open(os.path.join(os.environ['OUTPUT_DIR'], 'b'), 'wb').write(bytes(3))\n"
        "result = 1\n"
    )
    assert (result.outcome, result.value) == (Outcome.OK, 1)
    assert result.files == {"plots/daily/a.txt": b"plot", "b": bytes(3)}


def test_a_job_that_fails_leaves_its_files_too(client):
    result = client.run("open('out/log', 'w').write('so far')\nraise ValueError('bad')")
    assert (result.outcome, result.files) == (Outcome.ERROR, {"log": b"so far"})


def test_files_and_value_together_have_one_limit(client):
    within = client.run("open('out/x', 'wb').write(bytes(600_000))\nresult = bytes(400_000)")
    assert (within.outcome, len(within.files["x"]), len(within.value)) == (Outcome.OK, 600_000, 400_000)
    over = client.run("open('out/x', 'wb').write(bytes(700_000))\nresult = bytes(400_000)")
    assert (over.outcome, over.files, over.value) == (Outcome.OUTPUT, {}, None)
    assert "'x'" in over.error.message
    less = client.run("open('out/x', 'wb').write(bytes(2000))", limits=Limits(result=1000))
    assert less.outcome is Outcome.OUTPUT


def test_too_many_files_are_refused_with_both_numbers(client):
    result = client.run("for i in range(300): open(f'out/{i}', 'w')")
    assert result.outcome is Outcome.OUTPUT
    assert "300" in result.error.message
    assert str(wire.MAX_FILES_OUT) in result.error.message


def test_a_job_that_has_all_its_descriptors_in_use_gets_all_its_files_out(client):
    result = client.run(
        "import resource\n"
        "for n in range(100): open(f'out/{n}', 'w').write('x')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(open('/dev/null'))\n"
        "except OSError: pass\n"
    )
    assert result.ok
    assert len(result.files) == 100


def test_one_jobs_files_are_not_the_next_ones(client):
    client.run("open('out/mine', 'w').write('x')")
    assert client.run("import os\nresult = os.listdir('out')").value == []


def test_links_and_pipes_are_left_where_they_are(tmp_path):
    (tmp_path / "plain").write_bytes(b"1")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "away").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    assert collected(tmp_path) == {b"plain": b"1"}


def test_an_output_directory_that_is_a_link_or_gone_gives_nothing(tmp_path):
    (tmp_path / "out").symlink_to("/etc")
    assert collected(tmp_path / "out") == {}
    assert collected(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("name", [b"\xff\xfe", b"x" * 200 + b"/" + b"y" * 200])
def test_a_name_that_cannot_be_carried_is_an_error_that_names_it(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb"):
        pass
    with pytest.raises(ValueCodecError, match="cannot be carried"):
        output_files.collect(tmp_path, max_bytes=100)


def test_a_tree_that_is_deeper_than_any_path_is_walked_to_where_it_can_be_named(tmp_path):
    deep = tmp_path
    for _ in range(80):
        deep /= "d"
        deep.mkdir()
    (deep / "end").write_bytes(b"1")
    assert list(collected(tmp_path)) == [("d/" * 80 + "end").encode()]


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_what_a_worker_takes_as_names_of_files_never_leads_elsewhere(frames):
    for name in file_names(frames):
        assert name.encode() in frames
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert "\0" not in name


@pytest.mark.parametrize("name", [b"../x", b"/x", b"a//b", b"", b".", b"a/..", b"\xff", b"a\0b", b"x" * 256])
def test_an_answer_with_such_a_name_is_no_answer(name):
    assert Answer.of(Answer(Outcome.OK, 2, files=[b"good", b"content"]).frames()) is not None
    assert Answer.of(Answer(Outcome.OK, 2, files=[name, b"content"]).frames()) is None


def test_an_answer_that_announces_more_files_than_it_has_is_no_answer():
    frames = Answer(Outcome.OK, 2, files=[b"a", b"1", b"b", b"2"]).frames()
    assert Answer.of(frames) is not None
    assert Answer.of(frames[:-1]) is None
    assert Answer.of([*frames[:4], b"a", b"2"]) is None  # one name twice


def test_a_warm_up_leaves_alone_what_the_job_before_has_left(tmp_path):
    for number in range(300):
        (tmp_path / str(number)).touch()
    warmup.run("", Setting({}, Policy(), str(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 300
