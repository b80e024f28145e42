"""Where the daemon's sockets are, and what to say when nobody answers there.

    submit: argument, else POOL_ENDPOINT, else $POOL_RUN_DIR/submit.sock, else /run/pool/submit.sock
    admin:  argument, else POOL_ADMIN_ENDPOINT, else admin.sock beside the submit socket

An endpoint is `ipc://PATH`; a plain path is taken as one. There is no other transport: who a submitter is follows from
the credentials of a Unix socket.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pool.errors import ConfigError, DaemonUnreachableError

SCHEME = "ipc://"
DEFAULT_RUN_DIR = "/run/pool"
#: sun_path of a Unix socket has 108 bytes, the last of which is NUL.
MAX_PATH_BYTES = 107


def submit_endpoint(given: str | os.PathLike[str] | None = None) -> str:
    """The endpoint for jobs. Raises ConfigError for one that cannot work."""
    if given is not None:
        return _checked(given, "endpoint")
    if named := os.environ.get("POOL_ENDPOINT"):
        return _checked(named, "POOL_ENDPOINT")
    if run_dir := os.environ.get("POOL_RUN_DIR"):
        return _checked(os.path.join(run_dir, "submit.sock"), "POOL_RUN_DIR")  # noqa: PTH118 - text, not a path, as yet
    return f"{SCHEME}{DEFAULT_RUN_DIR}/submit.sock"


def admin_endpoint(given: str | os.PathLike[str] | None = None) -> str:
    """The endpoint for operators. Raises ConfigError for one that cannot work."""
    if given is not None:
        return _checked(given, "endpoint")
    if named := os.environ.get("POOL_ADMIN_ENDPOINT"):
        return _checked(named, "POOL_ADMIN_ENDPOINT")
    return _checked(Path(path_of(submit_endpoint())).with_name("admin.sock"), "POOL_ENDPOINT")


def path_of(endpoint: str) -> str:
    return endpoint.removeprefix(SCHEME)


def unreachable(endpoint: str, timeout_s: float) -> DaemonUnreachableError:
    """The error for a daemon that did not answer in time: what was tried, for how long, and what to look at."""
    return DaemonUnreachableError(
        f"no answer from the pool daemon at {endpoint} within {timeout_s:g} s: {_obstacle(path_of(endpoint))}",
        endpoint=endpoint,
        timeout_s=timeout_s,
    )


def is_there(endpoint: str) -> bool:
    """Whether there is a socket that we may write to; somebody listening or not is another question."""
    path = path_of(endpoint)
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode) and os.access(path, os.R_OK | os.W_OK)  # noqa: PTH116
    except OSError:
        return False


def _checked(given: str | os.PathLike[str], origin: str) -> str:
    """The endpoint, or a ConfigError that names where the bad one came from."""
    try:
        text: object = os.fspath(given)
        path = path_of(text) if isinstance(text, str) else ""
        size = len(os.fsencode(path))
    except (TypeError, UnicodeError):
        path, size, text = "", 0, repr(given)
    if not path or "\0" in path or "://" in path:
        raise ConfigError(f"{origin}: {text!r:.200} is no endpoint; write the path of the socket or ipc://PATH")
    if size > MAX_PATH_BYTES:
        raise ConfigError(
            f"{origin}: the socket path has {size} bytes, {MAX_PATH_BYTES} fit; use a shorter run directory: {path:.99}"
        )
    return SCHEME + path


def _obstacle(path: str) -> str:
    """What stands in the way, as far as the file system tells."""
    remedy = "is pool-daemon running, and does POOL_ENDPOINT name its submit.sock?"
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - a plain string is at hand
    except FileNotFoundError:
        return f"{path} does not exist; {remedy}"
    except PermissionError:
        return f"no permission to reach {path} as uid {os.getuid()}; ask for membership of the group of its directory"
    except OSError as error:
        return f"{path}: {error.strerror}; {remedy}"
    if not stat.S_ISSOCK(mode):
        return f"{path} is not a socket; {remedy}"
    if not os.access(path, os.R_OK | os.W_OK):
        return (
            f"no permission to write to {path} (mode {stat.S_IMODE(mode):04o}) as uid {os.getuid()}; "
            "ask for membership of its group"
        )
    return f"the socket is there, but nobody answers; {remedy} If it runs, it is stuck: see its log"
