"""Functions for build steps: run a program or a Docker build and report each line of its output."""

from __future__ import annotations

import hashlib
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from pool.errors import EngineError

#: Called with one line at a time. A line that begins with two spaces is a detail of the step before it.
Progress = Callable[[str], None]

#: Lines that the Engine prints in every build.
_NOISE = ("--->", "Removing intermediate container")

#: A build step without output for so long is ended. Compiling large libraries to byte code prints nothing for a while.
BUILD_TIMEOUT_S = 900


def run(command: Sequence[str], *, progress: Progress, remedy: str) -> None:
    """Run it and report each line. Raises EngineError with its last lines and what to do."""
    last: deque[str] = deque(maxlen=5)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            if text := line.rstrip():
                last.append(text)
                progress(f"  {text}")
    if process.returncode != 0:
        tail = " / ".join(last)
        raise EngineError(f"{Path(command[0]).name} failed with exit code {process.returncode}: {tail}; {remedy}")


def docker_build(
    client: docker.APIClient, context: Path, *, tag: str, arguments: dict[str, str], labels: dict[str, str],
    progress: Progress,
) -> None:  # fmt: skip
    """Build `context`; no network in any step."""
    stream = client.build(
        path=str(context), tag=tag, buildargs=arguments, labels=labels, network_mode="none", rm=True, forcerm=True,
        decode=True, timeout=BUILD_TIMEOUT_S,
    )  # fmt: skip
    for event in stream:
        if "error" in event:
            raise EngineError(f"the build of {tag} failed: {str(event['error']).strip()[:1000]}")
        for line in str(event.get("stream", "")).splitlines():
            if line.strip() and not line.lstrip().startswith(_NOISE):
                progress(f"  {line.rstrip()}")


def has_image(client: docker.APIClient, name: str) -> bool:
    return image_labels(client, name) is not None


def image_labels(client: docker.APIClient, name: str) -> dict[str, str] | None:
    """Labels of an image, None if there is no such image."""
    try:
        found = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
    return found["Config"].get("Labels") or {}


def fingerprint(*parts: str | bytes) -> str:
    """Digest of a recipe: the same parts in the same order."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()
