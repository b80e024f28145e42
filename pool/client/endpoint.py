"""The endpoints of the daemon's sockets, and the errors for a daemon that does not answer.

    submit: argument, else POOL_ENDPOINT, else $POOL_RUN_DIR/submit.sock, else /run/pool/submit.sock
    admin:  argument, else POOL_ADMIN_ENDPOINT, else admin.sock beside the submit socket

An endpoint is `ipc://PATH` or a plain path, of a socket or of the daemon's run directory. There is no other transport,
because the kernel's credentials for a Unix socket identify the submitter. Jobs never go to admin.sock. An AdminClient
may use submit.sock, where each user sees his own jobs.
"""

from __future__ import annotations

import grp
import os
import re
import socket
import stat
from pathlib import Path

from pool.errors import ConfigError, DaemonUnreachableError, PoolError

SCHEME = "ipc://"
DEFAULT_RUN_DIR = "/run/pool"
SUBMIT, ADMIN = "submit.sock", "admin.sock"
#: A daemon's listener accepts at once; this is for a stopped one whose backlog is full.
CONNECT_S = 1.0
_NS_PER_S = 1e9
#: sun_path of a Unix socket has 108 bytes, the last of which is NUL.
MAX_PATH_BYTES = 107


def submit_endpoint(given: str | os.PathLike[str] | None = None) -> str:
    """The endpoint for jobs. Raises ConfigError for one that cannot work."""
    if given is not None:
        return _checked(given, "endpoint", SUBMIT)
    if named := os.environ.get("POOL_ENDPOINT"):
        return _checked(named, "POOL_ENDPOINT", SUBMIT)
    if run_dir := os.environ.get("POOL_RUN_DIR"):
        return _checked(os.path.join(run_dir, SUBMIT), "POOL_RUN_DIR", SUBMIT)  # noqa: PTH118 - text, not a path, as yet
    return f"{SCHEME}{DEFAULT_RUN_DIR}/{SUBMIT}"


def admin_endpoint(given: str | os.PathLike[str] | None = None) -> str:
    """The endpoint for operators. Raises ConfigError for one that cannot work."""
    if given is not None:
        return _checked(given, "endpoint", ADMIN)
    if named := os.environ.get("POOL_ADMIN_ENDPOINT"):
        return _checked(named, "POOL_ADMIN_ENDPOINT", ADMIN)
    return _checked(Path(path_of(submit_endpoint())).with_name(ADMIN), "POOL_ENDPOINT", ADMIN)


def path_of(endpoint: str) -> str:
    return endpoint.removeprefix(SCHEME)


def socket_in(endpoint: str, name: str, *, instead_of: str = "") -> str:
    """The socket of this name in the run directory that the endpoint names, by itself or by the socket `instead_of`."""
    directory, slash, last = endpoint.rpartition("/")
    if last and last == instead_of:
        return f"{directory}{slash}{name}"
    return os.path.join(endpoint, name) if os.path.isdir(path_of(endpoint)) else endpoint  # noqa: PTH112, PTH118 - text


def absent(endpoint: str) -> DaemonUnreachableError | None:
    """The error for a daemon that cannot answer now; None if no cause is known."""
    reason = obstacle(endpoint)
    return DaemonUnreachableError(reason, endpoint=endpoint) if reason else None


def unreachable(endpoint: str, timeout_s: float) -> DaemonUnreachableError:
    """The error for a daemon that did not answer within `timeout_s`, with the cause and what to do."""
    message = obstacle(endpoint) or (
        f"the daemon at {path_of(endpoint)} did not answer within {timeout_s:g} s. It is overloaded or stuck: see its "
        "log, or allow more time (timeout=...)."
    )
    return DaemonUnreachableError(message, endpoint=endpoint, timeout_s=timeout_s)


def not_accepted(job_id: str, what: str) -> DaemonUnreachableError:
    return DaemonUnreachableError(
        f"the daemon {what} job {job_id}, so whether it ran is unknown; "
        "ask with result(job_id), or submit it again under the same job id",
        job_id=job_id,
    )


def unanswered(error: DaemonUnreachableError, job_id: str, *, sent_at: float) -> DaemonUnreachableError:
    """The error of a Submit that a daemon may have received. Its fields are what `was_not_accepted` needs."""
    message = f"{error.message} Whether job {job_id} was accepted is unknown: ask with result(job_id)."
    return DaemonUnreachableError(message, **{**error.fields, "job_id": job_id, "sent_at": sent_at})


def was_not_accepted(error: PoolError, *, sent_at: object) -> bool:
    """Whether a job that a daemon does not know was certainly never accepted. `sent_at`: monotonic seconds.

    A daemon knows all jobs that were accepted after a certain time: with a journal also those of earlier daemons, and
    without it those since its own start. Results that it has dropped move this time.
    """
    known_since_ns = error.fields.get("known_since_ns")
    return isinstance(known_since_ns, int) and isinstance(sent_at, float) and known_since_ns < sent_at * _NS_PER_S


def obstacle(endpoint: str) -> str:
    """The cause as the file system and one attempt to connect show it, with what to do; empty if there is none."""
    path = path_of(endpoint)
    try:
        facts = os.stat(path)  # noqa: PTH116 - a plain string is at hand
    except FileNotFoundError:
        return f"no daemon: {path} does not exist. Start pool-daemon, or set --run-dir / POOL_RUN_DIR."
    except PermissionError:
        return f"uid {os.getuid()} may not enter the directory of {path}. {_remedy(path, None)}"
    except OSError as error:
        return f"no daemon: {path}: {error.strerror}. Start pool-daemon, or set --run-dir / POOL_RUN_DIR."
    if not stat.S_ISSOCK(facts.st_mode):
        return f"{path} is not a socket. Name the daemon's run directory, or set --run-dir / POOL_RUN_DIR."
    if not os.access(path, os.R_OK | os.W_OK):
        mode = f"{stat.S_IMODE(facts.st_mode):04o}"
        return f"uid {os.getuid()} may not use {path} (mode {mode}). {_remedy(path, facts)}"
    return _refused(path)


def _checked(given: str | os.PathLike[str], origin: str, name: str) -> str:
    """The endpoint, or a ConfigError that names where the bad one came from; `name` of the socket in a directory."""
    try:
        text: object = os.fspath(given)
        named = socket_in(text, name, instead_of=ADMIN) if isinstance(text, str) else ""
        path = path_of(named)
        size = len(os.fsencode(path))
    except (TypeError, UnicodeError):
        path, size, text = "", 0, repr(given)
    if "://" in path or re.fullmatch(r"[\w.-]*:\d+", path):
        raise ConfigError(
            f"{origin}: {text!r:.200} is not a socket path, and the daemon listens on Unix sockets only; "
            "write the path of its submit.sock or ipc://PATH"
        )
    if not path or "\0" in path:
        raise ConfigError(f"{origin}: {text!r:.200} is not an endpoint; write the path of the socket or ipc://PATH")
    if size > MAX_PATH_BYTES:
        raise ConfigError(
            f"{origin}: the socket path has {size} bytes, {MAX_PATH_BYTES} fit; use a shorter run directory: {path:.99}"
        )
    return SCHEME + path


def _remedy(path: str, facts: os.stat_result | None) -> str:
    """The group of users who may use the socket, and how to join it."""
    if path.endswith("/admin.sock"):
        return "Only root and the daemon's user may use the admin socket; try sudo."
    if facts is None or not facts.st_mode & stat.S_IWGRP:
        return "Ask its owner for access, or run as the daemon's user."
    try:
        group = grp.getgrgid(facts.st_gid).gr_name
    except KeyError:
        group = str(facts.st_gid)
    return f"It is for the group {group}: `usermod -aG {group} USER`, then log in again."


def _refused(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return f"the daemon has died: nobody listens at {path} (connection refused). Start it again."
        except OSError:
            return ""
    return ""
