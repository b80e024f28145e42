"""The same programs outside the pool: a fresh interpreter for each, in one long-lived container of the worker image.

    Reference.look(cases) ─ batch.json ─▶ docker exec driver.py ─▶ one.py, one.py ...
                          ◀── a line of JSON for each case ────────┘

Nothing of the pool's runner runs in there, and none of its isolation: a default container without a network.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import docker
from docker.utils import kwargs_from_env
from docker.utils.socket import STDERR, frames_iter

from pool.engines.lockdown import ENVIRONMENT
from tests.corpus.case import Case
from tests.corpus.seen import Seen, of_answer

_INSIDE = Path(__file__).with_name("inside")
#: More than the pool's template gives a job, so that what ends at a limit there can be told from what has no end.
WALL_S = 120.0
_PYTHON = ["/usr/bin/python3", "-s", "-P", "-X", "utf8"]
#: Process 1 of the container: it waits, and leaves no dead process behind.
_WAIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.sigwait([signal.SIGTERM])"


@dataclass(frozen=True, slots=True)
class Witness:
    """The result of a case in the plain process."""

    seen: Seen
    foreign: str = ""  #: its value is of a type that the pool does not carry: which


class Reference:
    """`with Reference(image) as reference:`"""

    def __init__(self, image: str) -> None:
        self._image = image
        self._sdk = docker.APIClient(version="auto", timeout=600, **kwargs_from_env())
        self._place = Path(tempfile.mkdtemp(prefix="corpus."))
        self._container = ""
        self._batches = 0

    def __enter__(self) -> Self:
        try:
            self._place.chmod(0o755)
            shutil.copytree(_INSIDE, self._place / "inside", ignore=shutil.ignore_patterns("__pycache__"))
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._container:
            self._sdk.remove_container(self._container, force=True)
        self._sdk.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def _start(self) -> None:
        host = self._sdk.create_host_config(
            network_mode="none",
            binds=[f"{self._place}:/corpus:ro"],
            tmpfs={"/tmp": "size=1g"},
            mem_limit="3g",
            pids_limit=512,
        )
        self._container = self._sdk.create_container(
            self._image, [_WAIT], entrypoint=[*_PYTHON, "-c"], host_config=host, environment=dict(ENVIRONMENT)
        )["Id"]
        self._sdk.start(self._container)

    def look(
        self,
        cases: Sequence[Case],
        *,
        wall_s: float = WALL_S,
        slots: int = 2,
        preload: Sequence[str] = (),
        ended: Callable[[], None] = lambda: None,
    ) -> list[Witness]:
        """Run the cases, `slots` at a time; what came of them, in their order."""
        found: dict[int, Witness] = {}
        rows = [_row(case) | {"preload": list(preload)} for case in cases]
        for line in self._lines(self._batch({"wall_s": wall_s, "slots": slots, "cases": rows})):
            answer: Mapping[str, object] = json.loads(line)
            found[int(str(answer["at"]))] = Witness(of_answer(answer), str(answer["foreign"]))
            ended()
        assert sorted(found) == list(range(len(cases))), f"{len(found)} of {len(cases)} cases were answered"
        return [found[at] for at in range(len(cases))]

    def _batch(self, batch: Mapping[str, object]) -> str:
        self._batches += 1
        name = f"batch{self._batches}.json"
        (self._place / name).write_text(json.dumps(batch), encoding="utf-8")
        return name

    def _lines(self, batch: str) -> Iterator[bytes]:
        command = [*_PYTHON, "/corpus/inside/driver.py", f"/corpus/{batch}"]
        asked = self._sdk.exec_create(self._container, command)
        begun, complaints = b"", b""
        sock = self._sdk.exec_start(asked["Id"], socket=True)
        try:
            for stream, piece in frames_iter(sock, tty=False):
                if stream == STDERR:
                    complaints += piece
                    continue
                *whole, begun = (begun + piece).split(b"\n")
                yield from whole
        finally:
            sock._response.close()
            sock.close()
        assert not complaints, complaints.decode(errors="replace")[-4000:]


def _row(case: Case) -> dict[str, object]:
    files = {name: base64.b64encode(content).decode() for name, content in case.files.items()}
    return {"code": case.code, "entry": case.entry, "args": list(case.args), "seed": case.seed, "files": files}
