"""Data sets in real workers: every format with its dtypes, one copy for all jobs, and files that change under load."""

import contextlib
import hashlib
import itertools
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pool.model import Outcome
from tests.support.daemons import DaemonProcess
from tests.support.waiting import eventually

TEMPLATE = {"size": {"min": 2, "max": 3}, "limits": {"wall_s": 600, "cpu_s": 60, "memory": "512m"}}
#: Several workers start one after the other, and a busy machine takes many seconds for each.
PATIENCE_S = 300
#: Executed here and, to write the files, in the image, which has pyarrow.
FRAME = """
import numpy as np, pandas as pd
frame = pd.DataFrame({
    "int": np.arange(5, dtype="i4"),
    "float": [0.5, np.nan, np.inf, -0.0, 1e300],
    "bool": [True, False, True, True, False],
    "text": ["a", None, "ü", "", "x" * 100],
    "string": pd.array(["a", None, "b", "c", "d"], dtype="string"),
    "Int64": pd.array([1, None, 3, 2**62, -5], dtype="Int64"),
    "boolean": pd.array([True, None, False, True, None], dtype="boolean"),
    "Float32": pd.array([1.5, None, 2.5, 3.5, None], dtype="Float32"),
    "zone": pd.date_range("2024-03-30", periods=5, freq="12h", tz="Europe/Berlin").as_unit("ns"),
    "time": pd.to_datetime(["2020-01-01", None, "1999-12-31", "2001-01-01", "2002-02-02"]) + pd.Timedelta("1us"),
    "delta": pd.to_timedelta([1, 2, None, 4, 5], unit="s"),
    "kind": pd.Categorical(["low", "high", None, "low", "mid"], categories=["low", "mid", "high"], ordered=True),
    "plain": pd.Categorical([3, 1, 2, 1, 3]),
})
"""
WRITE = f"""
import sys
sys.path.append("/usr/lib/pool-loaders")
{FRAME}
frame.to_feather("/out/feather.feather")
frame.drop(columns="plain").set_index("zone").to_parquet("/out/parquet.parquet")  # it has categories of text only
"""
READ = "def main(name):\n    return datasets[name]\n"
FIRST = "def main():\n    return float(datasets['prices'][0])\n"
PRINTS = "import time\nwhile True:\n    print(float(datasets['prices'][0]), flush=True)\n    time.sleep(0.05)\n"


def the_frame():
    names = {}
    exec(FRAME, names)
    return names["frame"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    command = ["docker", "run", "--rm", "--network=none", "--user=0", f"--volume={place}:/out"]
    command += ["--entrypoint=/usr/bin/python3", "pool-worker:latest", "-I", "-c", WRITE]
    subprocess.run(command, check=True, timeout=120)
    np.save(place / "array.npy", np.arange(12.0).reshape(3, 4, order="F"))
    days = np.zeros(300, dtype=[("date", "datetime64[D]"), ("close", "f8")])
    np.save(place / "records.npy", days)
    np.save(place / "empty.npy", np.empty((0, 3), dtype="i2"))
    the_frame()[["int", "float", "text", "bool"]].to_csv(place / "csv.csv", index=False)
    return place


@pytest.fixture(scope="module")
def daemon(files):
    names = ("array.npy", "records.npy", "empty.npy", "csv.csv", "parquet.parquet", "feather.feather")
    datasets = {name.partition(".")[0]: str(files / name) for name in names}
    template = TEMPLATE | {"recycle": {"max_jobs": 100_000}, "preload": {"datasets": datasets}}
    with DaemonProcess({"default": template}, engine="docker") as running:
        yield running


# ---- what a job finds ----


def test_arrays_have_their_shape_dtype_and_order(client, files):
    for name in ("array", "records", "empty"):
        value, meant = client.run(READ, entry="main", args=[name]).value, np.load(files / f"{name}.npy")
        np.testing.assert_array_equal(value, meant)
        assert (value.dtype, value.shape, value.flags.f_contiguous) == (
            meant.dtype,
            meant.shape,
            meant.flags.f_contiguous,
        )


def test_a_parquet_file_and_a_feather_file_arrive_with_their_dtypes(client):
    pd.testing.assert_frame_equal(client.run(READ, entry="main", args=["feather"]).value, the_frame())
    meant = the_frame().drop(columns="plain").set_index("zone")
    meant.index.freq = None
    pd.testing.assert_frame_equal(client.run(READ, entry="main", args=["parquet"]).value, meant)


def test_a_csv_file_is_what_pandas_reads_here(client, files):
    frame = client.run(READ, entry="main", args=["csv"]).value
    pd.testing.assert_frame_equal(frame, pd.read_csv(files / "csv.csv"))


def test_text_columns_hold_python_strings_and_only_the_loader_imports_pyarrow(client, daemon):
    code = (
        "import sys\n"
        "storage = {str(dtype.storage) for dtype in datasets['feather'].dtypes if hasattr(dtype, 'storage')}\n"
        "result = storage, 'pyarrow' in sys.modules, type(datasets['array']).__name__"
    )
    assert client.run(code).value == ({"python"}, False, "ndarray")
    runner = int(
        subprocess.check_output(["docker", "inspect", "-f", "{{.State.Pid}}", daemon.workers()[0]["container"]])
    )
    inside = []

    def parked():  # the next child is forked after the answer of the job before
        inside[:] = _maps(_with_children(runner))
        return len(inside) >= 3

    daemon.until(parked)
    assert not any("libarrow" in maps for maps in inside)


def _maps(pids):
    """Of those that have not just ended."""
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(Path(f"/proc/{pid}/maps").read_text())
    return [maps for maps in found if maps]


def _with_children(pid):
    found = [pid]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += _with_children(int(child))
    return found


def test_the_status_shows_digest_size_and_path_of_each(daemon, files):
    shown = daemon.pool()["datasets"]
    assert set(shown) == {"array", "records", "empty", "csv", "parquet", "feather"}
    for name, each in shown.items():
        content = next(files.glob(f"{name}.*")).read_bytes()
        assert each["digest"] == hashlib.sha256(content).hexdigest()
        assert (each["size_bytes"], each["problem"]) == (len(content), None)
        assert Path(each["path"]).read_bytes() == content


WRITES = {
    "an item of the array": "datasets['array'][0, 0] = 99",
    "the flags of the array": "a = datasets['array']; a.flags.writeable = True; a[:] = 99",
    "the memory of the array": "import ctypes\na = datasets['array']\nctypes.memset(a.ctypes.data, 7, a.nbytes)",
    "a column of the frame": "datasets['feather']['int'] = 99",
    "a cell of the frame": "datasets['feather'].iloc[0, 1] = 99.0",
    "the array of a column": "v = datasets['csv']['float'].to_numpy(); v.flags.writeable = True; v[:] = 99",
    "the name itself": "datasets = {'array': 99}",
}


@pytest.mark.parametrize("what", WRITES)
def test_a_write_to_a_data_set_reaches_no_other_job_and_no_file(client, files, what):
    look = "import hashlib, pandas as pd\nresult = (datasets['array'].sum(), str(datasets['feather']), str(datasets['csv']))"
    before = [(file, file.read_bytes()) for file in files.iterdir()]
    meant = client.run(look).value
    assert client.run(WRITES[what]).outcome is Outcome.OK
    assert [client.run(look).value for _ in range(4)] == [meant] * 4
    assert before == [(file, file.read_bytes()) for file in files.iterdir()]


def test_a_job_cannot_put_anything_into_the_mapping(client):
    result = client.run("datasets['array'] = 1")
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "TypeError")


def test_memory_of_a_worker_does_not_grow_with_its_jobs(client, daemon):
    code = "datasets['array'][:] = 1\nresult = float(datasets['feather']['float'].sum() + datasets['array'].sum())"

    def run(count):
        """What the workers have once it changes no more: one may be starting, and parked children warm up."""
        for _ in range(count):
            client.run(code)
        looks = [0]

        def steady():
            time.sleep(0.5)
            looks.append(sum(worker["rss_bytes"] for worker in daemon.workers()))
            return abs(looks[-1] - looks[-2]) < 64 << 10

        eventually(steady)
        return looks[-1]

    eventually(lambda: {worker["state"] for worker in daemon.workers()} == {"idle"})
    early, late = run(60), run(500)
    assert late < early + (4 << 20), (early, late)


# ---- files that change ----


def put(path, array):
    """Replace the whole file, by rename."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, np.asarray(array, dtype=float))
    partial.replace(path)


@contextlib.contextmanager
def a_pool_on(path, **changes):
    template = TEMPLATE | {"preload": {"datasets": {"prices": str(path)}}, **changes}
    with DaemonProcess({"default": template}, engine="docker") as daemon, daemon.client(timeout=60) as client:
        yield daemon, client


@contextlib.contextmanager
def a_stream_of_jobs(client, loops=3):
    """Each loop's results in order, in a list that grows; every job must be ok."""
    seen, stop = [[] for _ in range(loops)], threading.Event()

    def loop(mine):
        while not stop.is_set():
            mine.append(client.run(FIRST, entry="main"))

    threads = [threading.Thread(target=loop, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("scope", ["client", "any"])
def test_a_file_that_is_replaced_under_load_is_rolled_out_without_losing_a_job(tmp_path, scope):
    path = tmp_path / "prices.npy"
    put(path, [1.0] * 100_000)
    with (
        a_pool_on(path, recycle={"reuse_scope": scope, "max_jobs": 100_000}) as (daemon, client),
        a_stream_of_jobs(client) as seen,
    ):
        for content in (2.0, 3.0):
            daemon.until(lambda before=content - 1: _all_have_seen(seen, before))
            put(path, [content] * 100_000)
            meant = digest_of(path)
            daemon.until(lambda meant=meant: daemon.pool()["datasets"]["prices"]["digest"] == meant, timeout=PATIENCE_S)
            daemon.until(lambda: _all_on_one_edition(daemon), timeout=PATIENCE_S)
        daemon.until(lambda: _all_have_seen(seen, 3.0))
    values = [[result.value for result in mine] for mine in seen]
    assert {result.outcome for mine in seen for result in mine} == {Outcome.OK}
    assert all(set(mine) == {1.0, 2.0, 3.0} for mine in values)
    assert all(mine == sorted(mine) for mine in values), "a client saw older data after newer ones"


def _all_have_seen(seen, content):
    return all(mine and mine[-1].value == content for mine in seen)


def _all_on_one_edition(daemon):
    pool = daemon.pool()
    return {worker["edition"] for worker in pool["workers"]} == {pool["edition"]["current"]}


def test_a_job_in_flight_ends_on_the_data_it_began_with(tmp_path):
    path = tmp_path / "prices.npy"
    put(path, [1.0] * 1_000_000)
    with a_pool_on(path) as (daemon, client):
        running = client.submit(PRINTS)
        events = client.stream(running, timeout=PATIENCE_S)
        assert next(events).text.startswith("1.0")
        put(path, [2.0] * 1_000_000)
        daemon.until(lambda: client.run(FIRST, entry="main").value == 2.0, timeout=PATIENCE_S)
        client.run("")  # what the job printed before that has arrived
        later = [next(events).text for _ in range(3)]
        assert set("".join(later).split()) == {"1.0"}
        client.cancel(running)
        assert client.result(running, timeout=60).outcome is Outcome.CANCELLED


def test_a_file_that_is_overwritten_in_place_is_noticed_and_jobs_never_see_half_of_it(tmp_path):
    path = tmp_path / "prices.npy"
    put(path, [1.0] * 100_000)
    with a_pool_on(path) as (daemon, client), a_stream_of_jobs(client) as seen:
        with path.open("r+b") as file:
            np.save(file, np.full(100_000, 2.0))
        daemon.until(lambda: seen[0][-1:] and seen[0][-1].value == 2.0, timeout=PATIENCE_S)
    assert {(result.outcome, result.value) for result in itertools.chain(*seen)} == {
        (Outcome.OK, 1.0),
        (Outcome.OK, 2.0),
    }


def test_an_incomplete_file_leaves_the_old_data_in_use_until_it_is_complete(tmp_path):
    path = tmp_path / "prices.npy"
    put(path, [1.0] * 1000)
    whole = path.read_bytes()
    with a_pool_on(path, recycle={"max_jobs": 20}) as (daemon, client), a_stream_of_jobs(client) as seen:
        path.write_bytes(whole[:500])
        daemon.until(lambda: "datasets:default" in _alerts(daemon), timeout=PATIENCE_S)
        text = _alerts(daemon)["datasets:default"]
        assert "keeps the data it has" in text
        assert "'prices'" in text
        assert not daemon.pool()["breaker"]["open"]
        served = len(seen[0])
        daemon.until(lambda: len(seen[0]) > served + 30, timeout=PATIENCE_S)  # workers are worn meanwhile, and replaced
        put(path, [2.0] * 1000)
        daemon.until(lambda: seen[0][-1].value == 2.0, timeout=PATIENCE_S)
        daemon.until(lambda: _alerts(daemon) == {}, timeout=PATIENCE_S)
    assert {(result.outcome, result.value) for result in itertools.chain(*seen)} == {
        (Outcome.OK, 1.0),
        (Outcome.OK, 2.0),
    }


def _alerts(daemon):
    return {alert["id"]: alert["text"] for alert in daemon.status()["alerts"] if "dataset" in alert["id"]}


def test_a_pool_whose_file_is_removed_goes_on_and_replaces_its_workers(tmp_path):
    path = tmp_path / "prices.npy"
    put(path, [1.0] * 1000)
    with a_pool_on(path, recycle={"max_jobs": 5}) as (daemon, client):
        path.rename(tmp_path / "elsewhere.npy")
        daemon.until(
            lambda: "is gone; put it back" in _alerts(daemon).get("dataset:default:prices", ""), timeout=PATIENCE_S
        )
        assert "is gone" in daemon.pool()["datasets"]["prices"]["problem"]
        results = [client.run(FIRST, entry="main") for _ in range(40)]
        assert {(result.outcome, result.value) for result in results} == {(Outcome.OK, 1.0)}
        assert len({result.worker for result in results}) >= 8
        (tmp_path / "elsewhere.npy").rename(path)
        daemon.until(lambda: _alerts(daemon) == {}, timeout=PATIENCE_S)


def test_a_pool_whose_file_is_broken_at_the_start_says_so_and_starts_when_it_is_repaired(tmp_path):
    path = tmp_path / "prices.npy"
    path.write_bytes(b"half")
    template = TEMPLATE | {"preload": {"datasets": {"prices": str(path)}}}
    with DaemonProcess({"default": template}, engine="docker", wait_ready=False) as daemon:
        daemon.until(lambda: daemon.pool()["breaker"]["open"])
        assert "data set 'prices'" in daemon.pool()["breaker"]["last_reason"]
        put(path, [1.0] * 10)
        daemon.until(lambda: len(daemon.workers(state="idle")) == 2, timeout=PATIENCE_S)


def test_a_table_that_does_not_fit_into_the_workers_memory_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "prices.csv"
    with path.open("w") as file:
        file.write("a,b,c,d\n")
        for _ in range(40):
            file.write("0.123456789,1.123456789,2.123456789,text of some length\n" * 40_000)
    template = TEMPLATE | {
        "preload": {"datasets": {"prices": str(path)}},
        "limits": {"wall_s": 60, "cpu_s": 60, "memory": "128m"},
    }
    with DaemonProcess({"default": template}, engine="docker", wait_ready=False) as daemon:
        daemon.until(lambda: daemon.pool()["breaker"]["open"])
        reason = daemon.pool()["breaker"]["last_reason"]
        assert "data set 'prices'" in reason
        assert "limits.memory" in reason
