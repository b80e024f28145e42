"""Objects without a reference count, in this interpreter: where it has them, else nothing is changed."""

import subprocess
import sys
from pathlib import Path

IMAGE = Path(__file__).parents[2] / "worker_image"
PROGRAM = """
import sys
from runner import immortal

def function(x):
    return x + 1.25

data = {"frame": [object(), ("a part", 2.5)]}
listed, parts = [function, function.__code__.co_consts, sys], [data["frame"], data["frame"][0], data["frame"][1]]
before = list(map(sys.getrefcount, listed))
immortal.make(mortal=data.values())
endless = sys.getrefcount(None)
assert (list(map(sys.getrefcount, listed)) == [endless] * 3) == immortal.supported(), before
assert immortal.supported() or list(map(sys.getrefcount, listed)) == before
assert all(sys.getrefcount(each) < 100 for each in parts)
made = [[] for _ in range(1000)]
del made, data, parts
assert function(1) == 2.25
print(immortal.supported())
"""


def test_all_objects_but_the_named_ones_lose_their_count_where_the_interpreter_has_such_objects():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=IMAGE, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{(3, 12) <= sys.version_info[:2] <= (3, 13)}\n"
