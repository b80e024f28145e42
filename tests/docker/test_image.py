"""The worker image: what is in it, and above all what is not."""

import contextlib
import io
import stat
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest

from pool import __version__
from pool.engines.docker import DockerEngine
from pool.errors import EngineError, ImageMissingError
from pool.images import DEFAULT_TAG, base, build, libraries, runner_tree, worker
from pool.sources import IMAGE_ROOT, digest
from pool.wire import PROTOCOL_VERSION
from tests.support.process import python
from tests.support.waiting import eventually

MAX_SIZE_BYTES = 350 << 20

#: What the Engine puts into a container, over whatever the image has there.
OF_THE_ENGINE = ("/.dockerenv", "/dev/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab")

#: Names of programs that no worker needs and that an intruder could use.
UNWANTED = {
    "sh", "bash", "dash", "ash", "zsh", "busybox", "toybox", "perl", "env", "cp", "cat", "chmod", "su", "sudo", "mount", "tar",
    "apt", "apt-get", "dpkg", "pip", "pip3", "uv", "conda", "easy_install", "gcc", "cc", "g++", "clang", "tcc", "as", "ld", "make",
    "gdb", "strace", "curl", "wget", "nc", "ssh", "git", "ldconfig", "ldd", "login",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(worker_image, sdk):
    """Every entry of the image's file system, by path."""
    created = sdk.create_container(DEFAULT_TAG, ["x"])["Id"]
    try:
        with tempfile.TemporaryFile() as packed:
            for chunk in sdk.export(created):
                packed.write(chunk)
            packed.seek(0)
            with tarfile.open(fileobj=packed) as tar:
                entries = {f"/{member.name.rstrip('/')}": member for member in tar}
                return {path: entry for path, entry in entries.items() if not path.startswith(OF_THE_ENGINE)}
    finally:
        sdk.remove_container(created, force=True)


def test_the_image_is_small(worker_image):
    assert worker_image.size_bytes <= MAX_SIZE_BYTES


def test_there_is_no_shell_no_package_manager_and_no_compiler(files):
    runnable = [path for path, entry in files.items() if not entry.isdir() and ("/bin/" in path or "/sbin/" in path)]
    assert [path for path in runnable if not path.rpartition("/")[2].startswith("python3")] == []
    assert [path for path in files if path.rpartition("/")[2] in UNWANTED and not files[path].isdir()] == []


def test_the_only_programs_are_the_interpreter_and_the_dynamic_linker(files):
    executable = [path for path, entry in files.items() if entry.isfile() and entry.mode & 0o111 and ".so" not in path]
    assert [path for path in executable if not path.rpartition("/")[2].startswith("python3")] == []


def test_no_module_that_installs_or_compiles_is_left(files):
    for name in ("pip", "ensurepip", "venv", "idlelib", "tkinter", "lib2to3", "test", "pydoc_data"):
        left = [path for path in files if path.endswith((f"/python3.11/{name}", f"-packages/{name}"))]
        assert left == [], name


def test_nothing_is_setuid_and_nothing_but_the_scratch_directory_is_writable(files):
    loose = [
        path
        for path, entry in files.items()
        if not entry.issym()
        and (entry.mode & (stat.S_ISUID | stat.S_ISGID) or entry.mode & (stat.S_IWGRP | stat.S_IWOTH))
    ]
    # Runtimes give a tmpfs the mode of the directory it covers.
    assert loose == ["/tmp"]
    assert {entry.uid for entry in files.values()} == {0}


def test_there_are_no_secrets_and_no_leftovers_of_the_build(files):
    assert [path for path in files if path.startswith(("/root", "/home", "/build", "/var", "/rootfs"))] == []
    assert [path for path in files if path.endswith((".pyi", ".a", ".whl", "pip.conf"))] == []


def test_the_labels_say_what_is_in_it(worker_image, sdk):
    config = sdk.inspect_image(DEFAULT_TAG)["Config"]
    labels = config["Labels"]
    assert labels["pool.runner.version"] == worker_image.runner == __version__
    assert labels["pool.runner.sources"] == worker_image.sources
    assert labels["pool.runner.protocol"] == str(PROTOCOL_VERSION)
    assert labels["pool.python"].startswith("3.")
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/python3", "/opt/pool/runner/__main__.py"]


def test_the_runner_in_the_image_has_the_digest_that_the_label_says(engine, spec, sdk, worker_image):
    program = f"""
import sys; sys.path.insert(0, {str(IMAGE_ROOT)!r})
from pathlib import Path
from pool.sources import digest, read_tree
print(digest(read_tree(Path({str(IMAGE_ROOT)!r}))))
"""
    assert run(engine, sdk, spec(program)) == worker_image.sources


def test_everything_is_byte_compiled_and_not_checked_against_its_source(files):
    sources = {path for path in files if path.endswith(".py")}
    compiled = {
        path.replace("__pycache__/", "").partition(".cpython-")[0] + ".py" for path in files if path.endswith(".pyc")
    }
    # A few files are templates or for another Python: they do not compile anywhere.
    assert len(sources - compiled) <= 5, sources - compiled
    assert {path for path in sources if path.startswith(str(IMAGE_ROOT))} <= compiled


def test_an_import_reads_byte_code_that_is_never_rechecked(engine, spec, sdk):
    program = """
import pandas, json, importlib.util, sys
for module in (pandas, json):
    header = open(importlib.util.cache_from_source(module.__file__), "rb").read(8)
    assert header[4:] == (1).to_bytes(4, "little"), header  # hash-based, unchecked
    assert module.__spec__.cached == importlib.util.cache_from_source(module.__file__)
print(json.dumps.__code__.co_filename)
"""
    assert run(engine, sdk, spec(program)).endswith("json/__init__.py")


def test_the_libraries_work_without_network_or_a_writable_root(engine, spec, sdk):
    program = """
import bz2, ctypes, lzma, sqlite3, ssl, zlib, zoneinfo
import cloudpickle, msgpack, msgspec, numpy, pandas, zmq
assert zmq.has("ipc")
print(pandas.Timestamp("2024-07-01", tz="America/New_York").isoformat(), zoneinfo.ZoneInfo("Asia/Tokyo"))
"""
    assert run(engine, sdk, spec(program)) == "2024-07-01T00:00:00-04:00 Asia/Tokyo"


def run(engine, sdk, spec):
    container = engine.launch(spec)
    status = sdk.wait(container.id, timeout=300)["StatusCode"]
    output = sdk.logs(container.id).decode()
    assert status == 0, output
    return output.strip()


# ---- building ------------------------------------------------------------------------------------------------------


def test_a_second_build_finds_that_nothing_has_changed(worker_image):
    said = []
    assert build(progress=said.append) == build(progress=said.append)
    assert said[-1].endswith("up to date")


def test_other_sources_make_another_image_of_the_same_libraries(worker_image, sdk, monkeypatch):
    monkeypatch.setattr("pool.images.worker.runner_tree", lambda: runner_tree() | {"runner/extra.py": b"x = 1\n"})
    said = []
    tag = "pool-worker-test:other-sources"
    try:
        other = build(tag, progress=said.append)
        assert other.sources == digest(runner_tree() | {"runner/extra.py": b"x = 1\n"}) != worker_image.sources
        assert not any("downloading" in line for line in said)
        assert any(line.startswith("worker: building") for line in said)
    finally:
        sdk.remove_image(tag, force=True)


def test_a_base_image_that_nobody_has_is_told_as_such():
    with pytest.raises(ImageMissingError, match="is not on this host, and no registry"):
        build(base="pool-no-such-base:latest", progress=lambda _: None)


def test_a_base_image_without_python_is_told_as_such(sdk):
    tag = "pool-empty:test"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("nothing"))
    sdk.import_image_from_data(packed.getvalue(), *tag.split(":"))
    try:
        with pytest.raises(EngineError, match="python3"):
            build(base=tag, progress=lambda _: None)
    finally:
        sdk.remove_image(tag, force=True)


def test_a_requirement_without_a_wheel_names_the_file_and_leaves_the_image_alone(worker_image, tmp_path):
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("warm-container-pool-no-such-library==1\n")
    with pytest.raises(EngineError, match=f"pip|{wanted}") as caught:
        build(requirements=wanted, progress=lambda _: None)
    assert str(wanted) in caught.value.message
    engine = DockerEngine()
    assert engine.image(DEFAULT_TAG) == worker_image
    engine.close()


def test_with_nothing_to_make_a_base_with_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("pool.images.base.shutil.which", lambda _: None)
    with pytest.raises(EngineError, match="apt-get install mmdebstrap"):
        base._require_bootstrap()


def test_debootstrap_makes_the_base_where_mmdebstrap_is_not_installed(monkeypatch):
    monkeypatch.setattr("pool.images.base.shutil.which", {"debootstrap": "/usr/sbin/debootstrap"}.get)
    monkeypatch.setattr("pool.images.base.os.geteuid", lambda: 0)
    assert base._require_bootstrap() == "debootstrap"


def test_without_root_the_error_says_what_to_run(monkeypatch):
    monkeypatch.setattr("pool.images.base.shutil.which", lambda _: "/usr/sbin/debootstrap")
    monkeypatch.setattr("pool.images.base.os.geteuid", lambda: 1000)
    with pytest.raises(EngineError, match="sudo pool-admin image build"):
        base._require_bootstrap()


def test_without_pip_the_error_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr("pool.images.libraries.importlib.util.find_spec", lambda _: None)
    ground = base.Base(name="x", id="y", python="3.11", python_full="3.11.2", libc=(2, 36), machine="x86_64")
    with pytest.raises(EngineError, match="ensurepip"):
        libraries.download(ground, ("numpy",), tmp_path / "t", progress=print)


def test_wheels_are_chosen_for_the_c_library_of_the_base():
    ground = base.Base(name="x", id="y", python="3.11", python_full="3.11.2", libc=(2, 28), machine="aarch64")
    names = libraries.platforms(ground)
    assert names[0] == "manylinux_2_28_aarch64"
    assert "manylinux2014_aarch64" in names
    assert not any("2_29" in name for name in names)


def test_nothing_is_left_in_the_temporary_directory_when_a_build_fails(tmp_path, monkeypatch, worker_image):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EngineError):
        build(requirements=_missing_library(tmp_path), progress=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["wanted.txt"]


def _missing_library(directory):
    path = directory / "wanted.txt"
    path.write_text("warm-container-pool-no-such-library==1\n")
    return path


def test_builds_leave_no_nameless_images_behind(worker_image, sdk):
    """The last of several builds removes them; another process that runs tests may be building too."""

    def nameless():
        build(progress=lambda _: None)
        stages = [each["Id"] for each in sdk.images(filters={"dangling": True, "label": "pool.image.stage"})]
        others = [each["Id"] for each in sdk.images(filters={"dangling": True, "label": "pool.image.recipe"})]
        ours = [image for image in others if worker._is_worker_image(sdk, image)]  # others are built from ours
        return [image for image in (*stages, *ours) if not _is_used(sdk, image)]

    eventually(lambda: nameless() == [], deadline_s=300)


def test_a_nameless_image_that_a_user_has_built_from_a_worker_image_is_kept(worker_image, sdk):
    recipe = io.BytesIO(f"FROM {DEFAULT_TAG}\nENV MINE=1\n".encode())
    events = list(sdk.build(fileobj=recipe, rm=True, decode=True))
    (mine,) = [event["aux"]["ID"] for event in events if "aux" in event]
    try:
        build(progress=lambda _: None)
        assert sdk.inspect_image(mine)["Id"] == mine
    finally:
        sdk.remove_image(mine)


BUILDING = """
import sys
from pool.images import worker
tree = worker.runner_tree
for number in range(3):
    worker.runner_tree = lambda: {**tree(), "salt.py": f"# {sys.argv[1]} {number}".encode()}
    worker.build(sys.argv[1], progress=lambda _: None)
"""


def test_builds_of_one_engine_at_the_same_time_do_not_take_stages_from_one_another(worker_image, sdk):
    tags = [f"pool-worker-beside-{number}:latest" for number in range(3)]
    try:
        with ThreadPoolExecutor() as threads:
            ended = list(threads.map(lambda tag: python("-c", BUILDING, tag, timeout=600), tags))
        assert [(each.returncode, each.stderr) for each in ended] == [(0, "")] * 3
    finally:
        for tag in tags:
            with contextlib.suppress(docker.errors.ImageNotFound):
                sdk.remove_image(tag)


def _is_used(sdk, image):
    try:
        return bool(sdk.containers(all=True, filters={"ancestor": image}))
    except docker.errors.APIError:
        return False
