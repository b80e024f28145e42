"""An image with another Python than the daemon's: 3.13, in which the zygote's objects are immortal."""

import pytest

from pool.images import build
from tests.docker.conftest import make_stand_in
from tests.support.daemons import DaemonProcess

IMAGE = "pool-worker-python3.13:latest"
#: Fork a child that looks at every object, and print how many pages it has copied for that.
FORK = """
import gc, json, os, resource, sys
sys.path.insert(0, "/opt/pool")
import numpy, pandas
from runner import immortal
if {immortal}:
    immortal.make()
seen = gc.get_objects()
reading, writing = os.pipe()
if os.fork() == 0:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for each in seen:
        pass
    os.write(writing, json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
    os._exit(0)
os.wait()
print(os.read(reading, 100).decode())
"""


@pytest.fixture(scope="module")
def image():
    """Debian's packages of Python 3.13 are downloaded once, which takes minutes."""
    build(IMAGE, progress=print, python="3.13")
    return IMAGE


@pytest.fixture(scope="module")
def daemon(image, tmp_path_factory):
    prices = tmp_path_factory.mktemp("data") / "prices.csv"
    prices.write_text("day,close\n1,10.5\n2,11.25\n")
    preload = {"modules": ["numpy", "pandas"], "datasets": {"prices": str(prices)}}
    template = {"image": image, "size": {"min": 1, "max": 1}, "recycle": {"max_jobs": 1000}, "preload": preload}
    with DaemonProcess({"default": template}, engine="docker") as daemon:
        yield daemon


def test_a_job_has_the_python_of_the_image_and_its_libraries(client):
    result = client.run(
        "import sys, pandas as pd\n"
        "def main(values):\n"
        "    return sys.version_info[:2], float(pd.Series(values).rolling(2).mean().iloc[-1])\n",
        entry="main",
        args=[[1.0, 2.0, 4.0]],
    )
    assert result.value == ((3, 13), 3.0), result


def test_what_the_worker_has_loaded_has_no_reference_count_and_what_a_job_makes_has_one(client):
    code = (
        "import json, sys, pandas\n"
        "made, frame = {}, datasets['prices']\n"
        "counts = [sys.getrefcount(each) for each in (None, pandas, pandas.DataFrame.sum, made, frame)]\n"
        "result = [count == counts[0] for count in counts]"
    )
    assert client.run(code).value == [True, True, True, False, False]


def test_one_worker_runs_hundreds_of_jobs_and_its_memory_stays(client, daemon):
    code = "import pandas as pd\nresult = len(pd.DataFrame({'x': range(100)}).to_csv())"
    first = [client.run(code) for _ in range(50)]
    (before,) = daemon.workers()
    results = first + [client.run(code) for _ in range(250)]
    (after,) = daemon.workers()
    assert {(result.outcome, result.value) for result in results} == {("ok", first[0].value)}
    assert before["id"] == after["id"]
    assert after["rss_bytes"] - before["rss_bytes"] < 8 << 20


def test_a_child_copies_no_pages_to_look_at_objects_and_without_immortal_ones_it_copies_thousands(sdk, image):
    stand_in = make_stand_in(sdk, image, "pool-worker-python3.13-stand-in:latest")
    copied = {immortal: _copied(sdk, stand_in, FORK.format(immortal=immortal)) for immortal in (False, True)}
    assert copied[False] > 1000
    assert copied[True] < copied[False] / 5


def _copied(sdk, image, program):
    container = sdk.create_container(image, [program], network_disabled=True)["Id"]
    try:
        sdk.start(container)
        assert sdk.wait(container, timeout=120)["StatusCode"] == 0, sdk.logs(container).decode()
        return int(sdk.logs(container))
    finally:
        sdk.remove_container(container, force=True)
