"""Starts the zygote, in namespaces of its own where the host grants them.

    runner ──fork──▶ launcher: which parts are granted? enter them ──fork──▶ zygote
       ◀── its pid ──────┘ ends, so that the zygote becomes the runner's own child
       ── go ──────────────────────────────────────────────────────────────────▶ loads

A pid namespace holds what its maker forks next and not the maker, hence the process in between.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NoReturn

from runner import confine, kernel, survey, zygote
from runner.survey import BARE, Grant
from runner.zygote import Plan

LEVELS = ("auto", "namespaces", "plain", "none")
_PID = struct.Struct("!i")
_GO = b"g"


def launch(plan: Plan) -> tuple[socket.socket, int]:
    """The zygote's control socket and its pid. Raises PreloadError when the host refuses what the template demands."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
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
            confine.enter()
            if (pid := os.fork()) > 0:
                control.send(_PID.pack(pid))
                os._exit(0)
        else:
            control.send(_PID.pack(os.getpid()))
        control.recv(1)
        kernel.die_with_parent()  # it has another one by now
        zygote.main(control, plan, grant)
    finally:
        os._exit(1)


def _grant(wanted: str) -> Grant:
    """What there will be of what the template wants."""
    if wanted == "none":
        return BARE
    grant = survey.survey()
    return survey.plain(grant) if wanted == "plain" else grant
