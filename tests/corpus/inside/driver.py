"""Runs a batch of cases, each in a fresh interpreter of the worker image; prints a line for each.

python3 driver.py BATCH     ─▶ {"at": 0, "outcome": "ok", "value": ..., "stdout": ..., ...}
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

ONE = Path(__file__).with_name("one.py")
#: Of each stream, as in the pool's template.
KEPT_BYTES = 1 << 20
MEMORY_BYTES = 1 << 30
_ENCODING = "utf-8:backslashreplace"
_FLAGS = ("-s", "-P", "-X", "utf8")


def main(path: str) -> None:
    batch = json.loads(Path(path).read_text(encoding="utf-8"))
    slots: SimpleQueue[int] = SimpleQueue()
    for number in range(batch["slots"]):
        slots.put(number)
    with ThreadPoolExecutor(batch["slots"]) as threads:
        futures = {threads.submit(_in_slot, slots, case, batch["wall_s"]): at for at, case in enumerate(batch["cases"])}
        for future in as_completed(futures):
            print(json.dumps({"at": futures[future]} | future.result()), flush=True)


def _in_slot(slots: SimpleQueue[int], case: dict, wall_s: float) -> dict:
    number = slots.get()
    scratch = Path(f"/tmp/slot{number}")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "work" / "out").mkdir(parents=True)
        found = json.dumps(_run(case, wall_s, scratch, Path(f"/tmp/said{number}")))
        return json.loads(found.replace(str(scratch), "/tmp"))  # a job's work directory is /tmp/work
    finally:
        slots.put(number)


def _run(case: dict, wall_s: float, scratch: Path, said: Path) -> dict:
    shutil.rmtree(said, ignore_errors=True)
    said.mkdir()
    (said / "case").write_text(json.dumps(case), encoding="utf-8")
    status = _process(said, scratch, wall_s)
    streams = {name: _text(said / name) for name in ("stdout", "stderr")}
    answer = said / "answer"
    if status is not None and answer.exists():
        return json.loads(answer.read_text(encoding="utf-8")) | streams
    outcome = "timeout" if status is None else "crash"
    return {"outcome": outcome, "type": "", "message": "", "exit_code": None, "value": "", "foreign": ""} | streams


def _process(said: Path, scratch: Path, wall_s: float) -> int | None:
    """Its exit status, or None if it took too long."""
    work = scratch / "work"
    own = {"HOME": str(work), "TMPDIR": str(scratch), "OUTPUT_DIR": str(work / "out"), "PYTHONIOENCODING": _ENCODING}
    command = [sys.executable, *_FLAGS, str(ONE), str(said / "case"), str(said / "answer")]
    with (said / "stdout").open("wb") as out, (said / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=work,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=_bound,  # noqa: PLW1509 - it takes no lock
        )
    try:
        return process.wait(wall_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(KEPT_BYTES).decode("utf-8", "replace")


if __name__ == "__main__":
    main(sys.argv[1])
