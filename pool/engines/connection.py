"""Connections to the Docker Engine, and the translation of its errors.

    thread ──▶ take an idle client, or open one ──▶ call ──▶ put it back
                    deque.pop / deque.append: atomic, no lock

One SDK client holds one `requests.Session`, which is not safe to share between threads at the same time. Here a client
belongs to one call at a time. There are as many clients as there were calls at the same time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from pool.errors import EngineError, EngineUnavailableError, ImageMissingError, StartError

#: The longest error text of the Engine that is passed on.
MAX_ENGINE_TEXT = 500

#: The exceptions of the SDK and of the HTTP library below it.
SDK_ERRORS = (DockerException, requests.RequestException)

#: For each error text of the Engine's socket (as part of the wrapping exception's text), what to do.
_REMEDIES = {
    "Permission denied": "this user may not use its socket: add the user to the group `docker`, or run as root",
    "No such file": "there is no socket: install and start the Docker Engine, or set DOCKER_HOST",
    "Connection refused": "nobody listens on its socket: start the Docker Engine, or set DOCKER_HOST",
}


class Connections:
    """Lends SDK clients, for one call each."""

    def __init__(self, *, timeout_s: int) -> None:
        self._timeout_s = timeout_s
        self._idle: deque[docker.APIClient] = deque()

    @contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """A client for the time of the block. After a call without an answer it is not used again."""
        client = self._take()
        try:
            yield client
        except requests.RequestException as error:
            if not isinstance(error, APIError):
                client.close()
                raise
            self._idle.append(client)
            raise
        except BaseException:
            client.close()
            raise
        self._idle.append(client)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> docker.APIClient:
        try:
            return self._idle.pop()
        except IndexError:
            # "auto" asks the Engine: a fixed version would be too new for old Engines and refused by new ones.
            return docker.APIClient(version="auto", timeout=self._timeout_s, **kwargs_from_env())


def is_gone(error: Exception) -> bool:
    """Whether the Engine answered that the object does not exist."""
    return isinstance(error, APIError) and error.status_code == 404


def translate(error: Exception, doing: str, *, image: str = "") -> EngineError:
    """The error to raise for what the SDK raised while `doing` something ("create the container", say)."""
    if isinstance(error, ImageNotFound):
        return ImageMissingError(
            f"there is no image {image!r} in the Docker Engine; build it with `pool-admin image build`", image=image
        )
    if isinstance(error, APIError):
        text = str(error.explanation or error)[:MAX_ENGINE_TEXT]
        return StartError(f"the Docker Engine refused to {doing}: {text}", status=error.status_code)
    return unavailable(error, doing)


def unavailable(error: Exception, doing: str) -> EngineUnavailableError:
    """The Engine did not answer: why, and what to do."""
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return EngineUnavailableError(f"the Docker Engine did not {doing} in time; look at its load and its log")
    for symptom, remedy in _REMEDIES.items():
        if symptom in text:
            return EngineUnavailableError(f"the Docker Engine cannot be reached at {address()}, {remedy}")
    return EngineUnavailableError(f"the Docker Engine cannot be reached at {address()}: {text[:MAX_ENGINE_TEXT]}")


def address() -> str:
    """Of the Engine, as DOCKER_HOST has it."""
    return os.environ.get("DOCKER_HOST", "") or "unix:///var/run/docker.sock"
