"""What the zygote runs as its children do, before it forks the first one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REHEARSE = """
import ctypes, dis, json, linecache, os, sys
from pathlib import Path
from runner import child
from runner.answer import Setting
from runner.confinement import Confinement
from runner.isolation import BARE
from runner.program import UNSCREENED

scratch = Path(sys.argv[1])
confinement = Confinement(BARE, frozenset(), tmp_bytes=1 << 20, tmp_inodes=64)
prepared = child.prepare(scratch, Setting({}, UNSCREENED, "/nonexistent"), confinement, [ctypes.c_int()] * 3)

def state():
    return {**sys.modules}, {**linecache.cache}, confinement.sealing, os.getcwd(), os.listdir(scratch)

before = state()
child.rehearse(prepared)
found = {each.opname for each in dis.get_instructions(child._confine, adaptive=True)}
print(json.dumps([state() == before, "LOAD_ATTR_SLOT" in found]))
"""


def test_the_zygote_has_the_code_of_a_child_specialised_and_is_as_it_was(tmp_path):
    """A child whose code is not specialised writes to the page of each name in it."""
    environment = {"PYTHONPATH": f"{ROOT}/worker_image:{ROOT}"}
    command = [sys.executable, "-c", REHEARSE, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("[true, true]\n", 0), ended.stderr
