"""The daemon's admin socket, played by a real ROUTER in a thread with canned answers; and ways to call pool-admin."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from typer.testing import CliRunner, Result

from pool import wire
from pool.cli.admin import app
from tests.support.process import python


def a_worker(**changes: object) -> dict[str, Any]:
    return {
        "id": "default-7f3a-1",
        "container": "c0ffee" * 10 + "beef",
        "state": "idle",
        "jobs": 12,
        "age_s": 95.2,
        "rss_bytes": 61 * 1024 * 1024,
        "lockdown": "proved",
        "isolation": "plain",
        "job": None,
        "client": "uid:1000",
        "uid": 70001,
        "boot_ms": 812.4,
    } | changes


def a_pool(**changes: object) -> dict[str, Any]:
    return {
        "name": "default",
        "engine": "docker",
        "image": "pool-worker:latest",
        "isolation": "plain",
        "state": "running",
        "ready": True,
        "size": {"min": 2, "max": 8, "target": 3},
        "breaker": {"open": False, "failures": 0, "last_reason": None, "retry_in_s": None},
        "workers": [
            a_worker(),
            a_worker(id="default-7f3a-2", state="leased", job="job-42"),
            a_worker(id="default-7f3a-3", state="starting", container=None, rss_bytes=None, age_s=0.4, jobs=0),
        ],
        "backlog": 5,
        "running": 1,
        "jobs": {"ok": 120, "error": 3, "timeout": 1, "lost": 0},
        "hit_rate": 0.9996,
        "recycles": {"max_jobs": 4, "max_age": 0},
        "overhead_ms": {"p50": 0.914, "p95": 2.06, "p99": 4.2},
        "queue_ms": {"p50": 0.01, "p95": 0.3, "p99": 1.0},
    } | changes


def a_snapshot(*pools: dict[str, Any], **changes: object) -> dict[str, Any]:
    daemon = {
        "version": "0.1.0",
        "pid": 4242,
        "state": "running",
        "uptime_s": 11520.0,
        "instance": "i-1",
        "run_dir": "/run/pool",
        "engine": {"name": "docker", "version": "20.10.5", "runtime": "runc", "cgroups": "v1"},
        "engines": [{"name": "docker", "version": "20.10.5", "runtime": "runc", "cgroups": "v1"}],
    }
    return {"daemon": daemon, "pools": list(pools or (a_pool(),)), "alerts": []} | changes


Answer = Callable[[dict[str, Any]], object]


class AdminSocket:
    """`answers`: the name of a call to a function of its arguments, which may return a Refusal."""

    def __init__(self, path: Path) -> None:
        self.endpoint = f"ipc://{path}"
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._context = zmq.Context()
        self._stop = self._context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop")
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self.endpoint)
        self._thread = threading.Thread(target=self._serve, name="admin socket")
        self._thread.start()

    def close(self) -> None:
        self._stop.send(b"")
        self._thread.join(60)
        self._stop.close(linger=0)
        self._context.term()

    def _serve(self) -> None:
        stop = self._context.socket(zmq.PAIR)
        stop.connect("inproc://stop")
        poller = zmq.Poller()
        poller.register(stop, zmq.POLLIN)
        poller.register(self._router, zmq.POLLIN)
        while stop not in dict(poller.poll()):
            self._answer(self._router.recv_multipart())
        self._router.close(linger=0)
        stop.close(linger=0)

    def _answer(self, frames: list[bytes]) -> None:
        route = 2 if frames[1] == b"" else 1
        call, _ = wire.decode(wire.from_admin, frames[route:])
        self.calls.append((call.name, call.arguments))
        answer = self.answers[call.name](call.arguments)
        if isinstance(answer, Refusal):
            reply = wire.AdminReply(request=call.request, code=answer.code, message=answer.message)
            body: object = answer.fields
        else:
            reply, body = wire.AdminReply(request=call.request), answer
        self._router.send_multipart([*frames[:route], *wire.encode(reply, [json.dumps(body).encode()])])


class Refusal:
    def __init__(self, code: str, message: str, **fields: object) -> None:
        self.code, self.message, self.fields = code, message, fields


def admin(daemon: AdminSocket, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["--endpoint", daemon.endpoint, *arguments], input=stdin, catch_exceptions=False)


def admin_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "pool.cli.admin", *arguments, env={**os.environ, **environment})


def row(output: str, first: str) -> list[str]:
    return next(line for line in output.splitlines() if line.startswith(first)).split()
