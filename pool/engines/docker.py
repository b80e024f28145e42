"""Workers as containers of a Docker Engine, or of another program with its API.

Three calls in a worker's life: create, start, and remove by force. Nothing is pulled and no network is made. A missing
image is an error. Every method may be called from several engine threads at once (see connection.py).
"""

from __future__ import annotations

import time

import docker
import requests
from docker.errors import APIError

from pool.assets import seccomp_profile
from pool.engines.base import RUNNER_LABEL, SOURCES_LABEL, EngineFacts, FoundContainer, ImageFacts, WorkerSpec
from pool.engines.connection import SDK_ERRORS, Connections, is_gone, translate, unavailable
from pool.engines.diagnosis import GONE, RUNNING, ending, readable
from pool.engines.lockdown import INSTANCE_LABEL, OWNER_LABEL, WORKER_LABEL, container_arguments, container_name
from pool.errors import EngineError, EngineUnavailableError, ImageMissingError, StartError

#: A create takes seconds in an Engine under load. After this time the Engine counts as unavailable.
CALL_TIMEOUT_S = 60
#: How long a removal that another caller began may take.
REMOVAL_TIMEOUT_S = 30
#: Between two questions whether it is done.
REMOVAL_PAUSE_S = 0.05
#: The HTTP status of a call that another one's work prevents: "removal of container ... is already in progress".
CONFLICT = 409


class DockerContainer:
    """One started container."""

    def __init__(self, connections: Connections, container_id: str) -> None:
        self.id = container_id
        self._connections = connections
        self._pid: int | None = None

    def __repr__(self) -> str:
        return f"DockerContainer({self.id[:12]})"

    def kill(self) -> None:
        try:
            with self._connections.client() as client:
                remove(client, self.id)
        except SDK_ERRORS as error:
            raise _failed(error, f"remove the container {self.id[:12]}") from error

    def diagnose(self) -> str:
        try:
            with self._connections.client() as client:
                state = client.inspect_container(self.id)["State"]
                output = client.logs(self.id, stdout=True, stderr=True, tail=50)
        except SDK_ERRORS as error:
            return GONE if is_gone(error) else f"the Docker Engine gives no details: {error}"
        return f"{_ending(state)}\n{readable(output)}".rstrip()

    def pid(self) -> int | None:
        if self._pid is None:
            try:
                with self._connections.client() as client:
                    self._pid = client.inspect_container(self.id)["State"]["Pid"] or None
            except SDK_ERRORS:
                return None
        return self._pid


class DockerEngine:
    """The Engine named by DOCKER_HOST, else the one on the default socket."""

    name = "docker"

    def __init__(self, *, seccomp: str | None = None, timeout_s: int = CALL_TIMEOUT_S) -> None:
        self._seccomp = seccomp_profile() if seccomp is None else seccomp
        self._connections = Connections(timeout_s=timeout_s)

    def facts(self) -> EngineFacts:
        try:
            with self._connections.client() as client:
                found = client.info()
        except SDK_ERRORS as error:
            raise unavailable(error, "answer") from error
        return EngineFacts(
            name=self.name,
            version=str(found.get("ServerVersion", "?")),
            runtime=str(found.get("DefaultRuntime", "?")),
            cgroups=f"v{found.get('CgroupVersion', '1')}",
        )

    def image(self, name: str) -> ImageFacts:
        try:
            with self._connections.client() as client:
                return image_facts(client, name)
        except SDK_ERRORS as error:
            raise translate(error, f"show the image {name}", image=name) from error

    def launch(self, spec: WorkerSpec) -> DockerContainer:
        try:
            with self._connections.client() as client:
                return DockerContainer(self._connections, _start(client, spec, self._seccomp))
        except SDK_ERRORS as error:
            failure = translate(error, f"start worker {spec.worker_id}", image=spec.image)
            raise self._unknown_runtime(spec) or failure from error

    def find(self, *, owner: str) -> list[FoundContainer]:
        try:
            with self._connections.client() as client:
                found = client.containers(all=True, filters={"label": f"{OWNER_LABEL}={owner}"})
        except SDK_ERRORS as error:
            raise _failed(error, "list the containers of this daemon") from error
        return [
            FoundContainer(
                DockerContainer(self._connections, each["Id"]),
                worker_id=each["Labels"].get(WORKER_LABEL, ""),
                instance=each["Labels"].get(INSTANCE_LABEL, ""),
                running=each["State"] == "running",
            )
            for each in found
        ]

    def close(self) -> None:
        self._connections.close()

    def _unknown_runtime(self, spec: WorkerSpec) -> StartError | None:
        """The error for an unknown runtime. Each Engine has another text for it, and none says what to do."""
        if spec.runtime is None:
            return None
        try:
            with self._connections.client() as client:
                known = sorted(client.info().get("Runtimes") or {})
        except SDK_ERRORS:
            return None
        if spec.runtime in known:
            return None
        return StartError(
            f"the Docker Engine has no OCI runtime named {spec.runtime!r}, only {', '.join(known)}; name one of these "
            "in the template's `runtime`, or add it to `runtimes` in the Engine's daemon.json and reload the Engine",
            runtime=spec.runtime,
        )


def image_facts(client: docker.APIClient, name: str) -> ImageFacts:
    found = client.inspect_image(name)  # type: ignore[no-untyped-call]
    labels = found["Config"].get("Labels") or {}
    return ImageFacts(
        id=found["Id"],
        runner=labels.get(RUNNER_LABEL, ""),
        sources=labels.get(SOURCES_LABEL, ""),
        size_bytes=found["Size"],
    )


def remove(client: docker.APIClient, container: str) -> None:
    """Kill and remove it, and return when it is gone; raises what the SDK raises.

    A removal that another caller has begun is asked for again until the container is gone. The Engine's own call for
    this, a wait with the condition "removed", does not return if it comes between the removal's last two steps.
    """
    deadline = time.monotonic() + REMOVAL_TIMEOUT_S
    while True:
        try:
            client.remove_container(container, force=True, v=True)
        except APIError as error:
            if is_gone(error):
                return
            if error.status_code != CONFLICT:
                raise
        else:
            return
        if time.monotonic() > deadline:
            raise requests.Timeout(f"the removal took longer than {REMOVAL_TIMEOUT_S} s")
        time.sleep(REMOVAL_PAUSE_S)


def _start(client: docker.APIClient, spec: WorkerSpec, seccomp: str) -> str:
    arguments = container_arguments(spec, seccomp)
    created = client.create_container_from_config(arguments, container_name(spec))  # type: ignore[no-untyped-call]
    container_id = str(created["Id"])
    try:
        client.start(container_id)
    except APIError as refused:
        _remove_refused(client, container_id, refused)
        raise
    return container_id


def _remove_refused(client: docker.APIClient, container: str, refused: APIError) -> None:
    """Remove a container that did not start. Raises EngineUnavailableError if it stays: then it is looked for later."""
    try:
        remove(client, container)
    except SDK_ERRORS as error:
        why = (translate(refused, f"start the container {container[:12]}"), translate(error, "remove it"))
        raise EngineUnavailableError("; ".join(each.message for each in why)) from error


def _failed(error: Exception, doing: str) -> EngineError:
    """Like `translate`, for calls other than a start."""
    failure = translate(error, doing)
    known = isinstance(failure, EngineUnavailableError | ImageMissingError)
    return failure if known else EngineError(failure.message, **failure.fields)


def _ending(state: dict[str, object]) -> str:
    if state.get("Running"):
        return RUNNING
    code, error = int(str(state.get("ExitCode"))), str(state.get("Error") or "")
    return ending(code, out_of_memory=bool(state.get("OOMKilled")), error=error)
