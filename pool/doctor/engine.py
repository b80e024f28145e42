"""Asks the Docker Engine what it is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pool.doctor.facts import Docker
from pool.engines.connection import SDK_ERRORS, Connections, unavailable
from pool.errors import EngineUnavailableError

#: An operator waits for the answer.
TIMEOUT_S = 10
DEFAULT_ENDPOINT = "unix:///var/run/docker.sock"


def endpoint() -> str:
    """Where the SDK looks for the Engine; the two ways to write a Unix socket are one here."""
    return (os.environ.get("DOCKER_HOST", "") or DEFAULT_ENDPOINT).removeprefix("http+")


def tls() -> bool:
    """Whether the SDK speaks TLS: its own rule."""
    return bool(os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"))


def read_engine() -> Docker:
    """Raises EngineUnavailableError."""
    connections = Connections(timeout_s=TIMEOUT_S)
    try:
        with connections.client() as client:
            return described(client.version(), client.info())
    except SDK_ERRORS as error:
        raise unavailable(error, "answer") from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        message = f"what answers at {endpoint()} does not speak as a Docker Engine does: {error!r}"
        raise EngineUnavailableError(message) from error
    finally:
        connections.close()


def described(version: Mapping[str, Any], found: Mapping[str, Any]) -> Docker:
    """The Engine's two answers, `version` and `info`, as facts."""
    return Docker(
        version=str(version.get("Version", "?")),
        api=str(version.get("ApiVersion", "?")),
        components=_components(version, found),
        runtime=str(found.get("DefaultRuntime", "?")),
        runtimes=frozenset(found.get("Runtimes") or {}),
        storage=str(found.get("Driver", "")),
        live_restore=bool(found.get("LiveRestoreEnabled")),
        swap_limit=bool(found.get("SwapLimit")),
        options=frozenset(_option(each) for each in found.get("SecurityOptions") or ()),
        warnings=tuple(str(each) for each in found.get("Warnings") or ()),
    )


def _components(version: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """A distribution's build has the version of its package where others have a commit: the more exact of the two."""
    parts = {str(each.get("Name")): each for each in version.get("Components") or ()}
    versions = {}
    for name, key in (("runc", "RuncCommit"), ("containerd", "ContainerdCommit")):
        short = str(parts.get(name, {}).get("Version") or "")
        exact = str((found.get(key) or {}).get("ID") or "")
        versions[name] = exact if re.match(r"v?\d+\.\d", exact) else short
    return versions


def _option(text: str) -> str:
    """`name=seccomp,profile=default` is called seccomp."""
    return text.partition(",")[0].removeprefix("name=")
