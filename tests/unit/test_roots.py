"""Unpacked images: added whole or not at all, kept as long as they are named, and the error for a missing one."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pool.cli.admin import app
from pool.engines.archive import Archive
from pool.engines.roots import Image, Roots, full_name
from pool.errors import EngineError, EngineUnavailableError, ImageMissingError

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")


def image(image_id=ONE, **fields):
    return Image(id=image_id, entrypoint=("/main",), labels={"pool.runner.version": "0.1"}, **fields)


def fill(text):
    def write(root):
        (root / "file").write_text(text)

    return write


@pytest.fixture
def roots(tmp_path):
    return Roots(tmp_path / "images")


def test_an_added_image_is_found_with_its_root_and_what_every_container_needs(roots):
    added = roots.add("worker", image(), fill("1"))
    assert roots.find("worker:latest") == added
    root = roots.root("worker")
    assert (root.entrypoint, (root.path / "file").read_text()) == (("/main",), "1")
    assert all((root.path / name).is_dir() for name in ("proc", "sys", "dev", "tmp"))
    assert (root.path / "etc/resolv.conf").read_text() == "nameserver 127.0.0.1\n"
    assert added.facts.runner == "0.1"
    assert added.facts.size_bytes > 0


def test_two_names_of_one_image_share_its_root_which_is_filled_once(roots):
    roots.add("a", image(), fill("1"))
    roots.add("b", image(), lambda root: pytest.fail("it is there already"))
    assert roots.root("a").path == roots.root("b").path


def test_a_root_that_no_name_means_any_more_is_removed(roots):
    roots.add("worker", image(ONE), fill("1"))
    old = roots.root("worker").path
    roots.add("worker", image(TWO), fill("2"))
    assert (roots.root("worker").path / "file").read_text() == "2"
    assert not old.exists()


def test_an_image_that_cannot_be_filled_leaves_the_name_as_it_was(roots):
    roots.add("worker", image(ONE), fill("1"))

    def fail(root):
        (root / "half").write_text("")
        raise OSError(28, "No space left on device")

    with pytest.raises(EngineError, match=r"cannot be unpacked into .*No space left"):
        roots.add("worker", image(TWO), fail)
    assert roots.find("worker").id == ONE
    assert [path.name for path in (roots.directory / "roots").iterdir()] == ["1" * 64]


def test_a_missing_image_is_told_with_the_commands_that_make_it(roots):
    assert roots.find("worker") is None
    with pytest.raises(ImageMissingError, match=r"pool-admin image build.*pool-admin image unpack FILE"):
        roots.root("worker")


def test_an_image_whose_root_was_deleted_is_missing(roots):
    roots.add("worker", image(), fill("1"))
    roots.root("worker").path.rename(roots.directory / "elsewhere")
    assert roots.find("worker") is None


def test_a_damaged_entry_is_told_with_its_file(roots):
    roots.add("worker", image(), fill("1"))
    (entry,) = (roots.directory / "names").iterdir()
    entry.write_text("{")
    with pytest.raises(EngineError, match=f"cannot be read from {entry}: .*; remove this file"):
        roots.find("worker")


def test_a_directory_that_cannot_be_made_is_told_with_the_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineUnavailableError, match=r"Not a directory; .*daemon.image_dir"):
        Roots(tmp_path / "file" / "images").add("worker", image(), fill("1"))


@pytest.mark.parametrize(
    ("name", "full"),
    [("a", "a:latest"), ("a:1", "a:1"), ("host:5000/a", "host:5000/a:latest"), ("a@sha256:1", "a@sha256:1")],
)
def test_a_name_without_a_tag_has_the_tag_latest(name, full):
    assert full_name(name) == full


# ---- archives ----


def tar(files):
    """A tar file of {name: bytes, or the target of a link}."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            elif content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return made.getvalue()


def archive(path, *layers):
    config = {"config": {"Entrypoint": ["/main"], "Env": ["A=b"], "Labels": {"pool.runner.version": "0.1"}}}
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": ["worker:1"], "Layers": names}]
    files = dict(zip(names, layers, strict=True)) | {"c.json": json.dumps(config).encode()}
    path.write_bytes(tar(files | {"manifest.json": json.dumps(manifest).encode()}))
    return path


def test_an_archive_tells_its_name_and_configuration(tmp_path):
    read = Archive(archive(tmp_path / "a.tar"))
    made = read.image()
    assert (read.name, made.entrypoint, made.environment) == ("worker:1", ("/main",), ("A=b",))
    assert made.labels == {"pool.runner.version": "0.1"}
    assert len(made.id) == len(ONE)
    assert read.image(TWO).id == TWO


@pytest.mark.parametrize("content", [b"", b"not a tar", tar({"manifest.json": b"[]"}), tar({"manifest.json": b"{"})])
def test_a_file_that_is_no_archive_is_told(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(EngineError, match=r"is not an image archive as `docker save` writes it.*docker save --output"):
        Archive(tmp_path / "a.tar")


def test_an_archive_that_is_not_there_is_told(tmp_path):
    with pytest.raises(EngineError, match="cannot be read: No such file"):
        Archive(tmp_path / "a.tar")


@pytest.fixture
def unpack(tmp_path):
    """Unpack layers; as root, which chroot needs."""
    if subprocess.run(["chroot", "/", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("chroot needs root")

    def unpack(*layers):
        root = tmp_path / "root"
        root.mkdir()
        Archive(archive(tmp_path / "a.tar", *layers)).unpack(root)
        return root

    return unpack


def test_a_later_layer_replaces_and_removes_what_the_ones_before_have(unpack):
    first = {"d": None, "d/kept": b"1", "d/gone": b"1", "d/replaced": b"1", "o": None, "o/old": b"1"}
    root = unpack(tar(first), tar({"d/.wh.gone": b"", "d/replaced": b"2", "o/.wh..wh..opq": b"", "o/new": b"2"}))
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == {"d/kept": b"1", "d/replaced": b"2", "o/new": b"2"}


def test_no_link_of_an_archive_leads_out_of_the_root(unpack, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    up = f"../../../../../../../..{outside}"
    root = unpack(tar({"a": str(outside), "b": up}), tar({"../../../x": b"3"}))
    layers = [tar({"a/x": b"1"}), tar({"b/y": b"2"}), tar({f"{up}/z": b"4"})]
    for layer in layers:
        command = [sys.executable, "-m", "pool.engines.untar", str(root)]
        subprocess.run(command, input=layer, check=False, capture_output=True, cwd=Path(__file__).parents[2])
    assert list(outside.iterdir()) == []
    assert (root / "x").read_bytes() == b"3"


def test_the_command_unpacks_an_archive_below_the_configured_directory(unpack, tmp_path):
    unpack()  # skips
    config, file = tmp_path / "pool.yaml", archive(tmp_path / "b.tar", tar({"main": b"1"}))
    config.write_text(f"daemon: {{image_dir: {tmp_path}/images}}")
    command = ["image", "unpack", str(file), "--config", str(config), "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert (result.exit_code, json.loads(result.stdout)["tag"]) == (0, "worker:1")
    assert (Roots(tmp_path / "images").root("worker:1").path / "main").read_bytes() == b"1"


def test_the_command_refuses_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x")
    result = CliRunner().invoke(app, ["image", "unpack", str(tmp_path / "a.tar")])
    assert (result.exit_code, "is not an image archive" in result.stderr) == (1, True)


def test_a_layer_that_is_damaged_is_told(unpack):
    with pytest.raises(EngineError, match="a layer of the image cannot be unpacked into"):
        unpack(b"x" * 1024)
