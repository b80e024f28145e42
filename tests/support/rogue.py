"""A daemon some of whose workers are taken over from their start on: see rogue_peer.py.

Each file in HOME/rogue is one worker to come of the pool `rogue`, first by name first; its content is the script. When
there is none the worker is honest, and so are those of all other pools. A file that was taken is HOME/taken-WORKER.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from pool import assets, sources
from pool.daemon.worker_spec import LINK_TARGET
from pool.testing import ProcessContainer, ProcessEngine

ROOT = Path(__file__).parents[2]


class RogueEngine(ProcessEngine):
    """Starts what the files say."""

    def __init__(self, scripts):
        super().__init__()
        self._scripts = scripts
        self._digest = sources.digest(assets.runner_tree())

    def launch(self, spec):
        script = self._next(spec.worker_id) if spec.pool == "rogue" else None
        if script is None:
            return super().launch(spec)
        link = next(mount.source for mount in spec.mounts if mount.target == LINK_TARGET) / "link.sock"
        command = [sys.executable, "-m", "tests.support.rogue_peer", script, str(link), self._digest]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        return ProcessContainer(process, Path(tempfile.mkdtemp(prefix="rogue-scratch-")))

    def _next(self, worker_id):
        for path in sorted(self._scripts.glob("*")):
            script = path.read_text()
            path.rename(self._scripts.parent / f"taken-{worker_id}")
            return script
        return None
