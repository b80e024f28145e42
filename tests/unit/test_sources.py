"""The digest of what an image holds, and where the parts of an installation are found."""

import pytest

from pool import assets
from pool.assets import runner_tree
from pool.errors import ConfigError
from pool.sources import LEAVES, digest, read_tree


def test_the_digest_does_not_depend_on_the_order_of_the_tree():
    assert digest({"a.py": b"1", "b.py": b"2"}) == digest({"b.py": b"2", "a.py": b"1"})


@pytest.mark.parametrize(
    "other",
    [
        {"a.py": b"1", "b.py": b"3"},
        {"a.py": b"1", "c.py": b"2"},
        {"a.py": b"1"},
        {"a.py": b"1", "b.py": b"2", "c.py": b""},
        {"a.py": b"1b.py2"},
        {"a.py": b"", "b.py": b"12"},
    ],
)
def test_the_digest_tells_any_two_trees_apart(other):
    assert digest({"a.py": b"1", "b.py": b"2"}) != digest(other)


def test_a_tree_is_its_python_files_by_relative_name(tmp_path):
    (tmp_path / "runner" / "__pycache__").mkdir(parents=True)
    (tmp_path / "runner" / "main.py").write_bytes(b"x = 1\n")
    (tmp_path / "runner" / "notes.txt").write_bytes(b"no")
    (tmp_path / "runner" / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"no")
    assert read_tree(tmp_path) == {"runner/main.py": b"x = 1\n"}


def test_what_was_put_into_an_image_reads_back_as_the_same_digest(tmp_path):
    tree = runner_tree()
    for name, data in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert digest(read_tree(tmp_path)) == digest(tree)


def test_the_runner_tree_has_the_runner_and_the_leaves_and_nothing_else_of_pool():
    tree = runner_tree()
    assert "runner/__main__.py" in tree
    of_pool = {name.removeprefix("pool/") for name in tree if name.startswith("pool/")} - {"__init__.py"}
    assert {leaf for leaf in LEAVES if not leaf.endswith("/")} <= of_pool
    assert all(name in LEAVES or name.startswith(tuple(x for x in LEAVES if x.endswith("/"))) for name in of_pool)


def test_the_package_in_the_image_does_not_import_the_client():
    assert b"import" not in runner_tree()["pool/__init__.py"]


def test_every_asset_is_found():
    assert (assets.worker_image() / "Dockerfile").is_file()
    assert assets.seccomp_profile().startswith("{")
    assert assets.example_config().is_file()


def test_an_incomplete_installation_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="install the wheel again") as caught:
        assets._find("worker_image", (tmp_path / "a", tmp_path / "b"))
    assert str(tmp_path / "a" / "worker_image") in caught.value.message
