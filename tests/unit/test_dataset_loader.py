"""The worker's side of data sets, without a container: what the zygote gets, and its errors."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from runner import datasets
from runner.datasets import DatasetError, Source

from tests.support.process import children


@pytest.fixture
def source(tmp_path):
    def make(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return Source(path.stem, f"{len(content)}-{path.stat().st_mtime_ns}", path)

    return make


@pytest.fixture
def array(source, tmp_path):
    np.save(tmp_path / "array.npy", np.arange(6.0).reshape(2, 3))
    return source("array.npy", (tmp_path / "array.npy").read_bytes())


def load(*sources):
    return datasets.unpack(datasets.fetch(sources))


def test_a_source_is_parsed_whatever_its_path_is():
    text = "prices=7-123=/srv/a=b/prices.npy"
    assert Source.parse(text) == Source("prices", "7-123", datasets.Path("/srv/a=b/prices.npy"))


def test_arrays_and_tables_arrive_by_name(array, source):
    found = load(array, source("table.csv", b"a,b\n1,x\n2,\n"))
    np.testing.assert_array_equal(found["array"], [[0, 1, 2], [3, 4, 5]])
    pd.testing.assert_frame_equal(found["table"], pd.DataFrame({"a": [1, 2], "b": ["x", np.nan]}))


def test_an_array_is_a_private_map_of_its_file(array):
    found = load(array)["array"]
    assert type(found) is np.ndarray
    before = array.path.read_bytes()
    found[:] = 7
    assert array.path.read_bytes() == before


@pytest.mark.parametrize("times", [(1, 1), None])
def test_nothing_is_loaded_that_was_touched_after_it_was_pinned(array, times):
    if times is None:
        array.path.write_bytes(array.path.read_bytes() + b"x")
    else:
        os.utime(array.path, ns=times)
    with pytest.raises(DatasetError, match=r"'array'.*changed after it was pinned"):
        load(array)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", b"no array", "'a': ."),
        ("a.npy", b"", "'a': ."),
        ("a.csv", b"", "'a': EmptyDataError: ."),
        ("a.csv", b"a\n1,2\n1,2,3\n\xff\xfe", "'a': ."),
        ("a.parquet", b"PAR1 not really", "'a': ."),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong_with_it(source, name, content, words):
    with pytest.raises(DatasetError, match=f"data set {words}"):
        load(source(name, content))


def test_an_array_of_objects_is_refused(source, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"'objects': ."):
        load(source("objects.npy", (tmp_path / "objects.npy").read_bytes()))


def test_a_table_that_cannot_be_carried_is_refused_with_its_dtype(source, monkeypatch):
    sparse = pd.DataFrame({"x": pd.arrays.SparseArray([0, 0, 1])})
    monkeypatch.setattr(datasets, "_TABLES", {".csv": lambda _: sparse})
    with pytest.raises(DatasetError, match=r"'a'.*Sparse.*astype"):
        load(source("a.csv", b"x"))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "raise limits.memory"),
        (lambda _: [].append(bytearray(1 << 60)), "raise limits.memory"),
        (lambda _: os._exit(3), "its loader died .*status 3"),
        (lambda _: os.kill(os.getpid(), signal.SIGTERM), "its loader died .*status 15"),
    ],
)
def test_a_loader_that_dies_is_told_from_a_broken_file(array, source, monkeypatch, end, words):
    monkeypatch.setattr(datasets, "_TABLES", {".csv": end})
    with pytest.raises(DatasetError, match=f"data set 'a': .*{words}"):
        load(array, source("a.csv", b"x"))


def test_the_names_cannot_be_changed(array):
    with pytest.raises(TypeError):
        load(array)["more"] = 1
    assert dict(datasets.unpack(datasets.fetch(()))) == {}


def test_the_loader_leaves_no_process_behind(array):
    before = children()
    load(array)
    assert children() <= before
