"""How the runner starts the zygote: while it has one thread, and has imported only what both of them need.

    runner ──fork──▶ launcher: finds out what the host grants, enters a user and a pid namespace ──fork──▶ zygote
       ◀── pid of the zygote ──────┘ ends, so that the zygote becomes the runner's own child
       ── go ────────────────────────────────────────────────────────────────────▶ imports and calls zygote.py

unshare() puts into the new pid namespace only what the process forks next; hence the launcher in between. What is
imported before the fork is copied, page by page, as soon as either process counts a reference in it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple, NoReturn

from runner import byte_code, forking, isolation, kernel
from runner.isolation import BARE, Grant
from runner.kernel import CLONE_NEWPID

#: What a template may ask for; `none` is for tests of the runner.
LEVELS = ("auto", "namespaces", "plain", "none")
_PID = struct.Struct("!i")
_GO = b"g"


class PreloadError(Exception):
    """The zygote cannot load what the template asks for."""


class ProcessDiedError(Exception):
    """The zygote, or a child that was getting ready, has died; a new worker may do better."""


class Plan(NamedTuple):
    """What the template says about a worker's children."""

    modules: tuple[str, ...]
    datasets: tuple[str, ...]  #: each NAME=STAMP=PATH, see datasets.py
    scratch: Path
    screen: str  #: the policy as JSON; empty: none
    isolation: str  #: one of LEVELS
    allow: frozenset[str]
    tmp_bytes: int
    tmp_inodes: int


def launch(plan: Plan) -> tuple[socket.socket, int]:
    """Start the zygote. Returns its control socket and its pid as the runner sees it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = forking.quick_fork()
    if pid == 0:
        ours.close()
        _launch(theirs, plan)
    theirs.close()
    answer = ours.recv(_PID.size)
    zygote_pid = _PID.unpack(answer)[0] if answer else 0
    if zygote_pid != pid:
        os.waitpid(pid, 0)
    ours.send(_GO)
    return ours, zygote_pid


def _launch(control: socket.socket, plan: Plan) -> NoReturn:
    kernel.die_with_parent()
    try:
        grant = _grant(plan.isolation)
        if grant.parts >= {"user"}:
            kernel.own_user_namespace(CLONE_NEWPID)  # the pid namespace is for what this process forks next
            if (pid := forking.quick_fork()) > 0:
                control.send(_PID.pack(pid))
                os._exit(0)
        else:
            control.send(_PID.pack(os.getpid()))
        control.recv(1)
        kernel.die_with_parent()  # again, for its parent is another process by now
        from runner import huge_pages

        gathering = contextlib.ExitStack()
        if plan.modules:
            gathering.enter_context(huge_pages.gathering())
        from runner import zygote  # its objects lie together with those of the libraries

        byte_code.release()
        zygote.live(control, plan, grant, gathering)
    finally:
        os._exit(1)


def _grant(wanted: str) -> Grant:
    """The parts of the wanted isolation that the host grants."""
    if wanted == "none":
        return BARE
    grant = isolation.probe()
    return isolation.without_namespaces(grant) if wanted == "plain" else grant
