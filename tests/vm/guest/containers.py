"""Containers of the checks' own: a program of ours in the worker image, under one AppArmor profile."""

import json
import subprocess
from pathlib import Path

import docker

from pool import assets
from pool.engines.base import WorkerSpec
from pool.engines.lockdown import container_arguments

IMAGE = "pool-worker:vm"
HERE = Path(__file__).parent
WAIT_S = 240


def as_worker(client, program, *, profile):
    """What the program prints when it runs as a worker does, with all of its lockdown."""
    spec = WorkerSpec(
        worker_id=f"steps-{profile}", pool="checks", owner="checks", instance="checks", image=IMAGE, runtime=None,
        uid=70001, command=(), mounts=(), memory_bytes=256 << 20, cpus=1.0, processes=32, tmp_bytes=16 << 20,
        tmp_inodes=256, nofile=256, apparmor=profile,
    )  # fmt: skip
    return _run(client, program, container_arguments(spec, assets.seccomp_profile()))


def as_root(client, program, *, profile):
    """What it prints when AppArmor alone confines it."""
    return _run(
        client,
        program,
        {
            "Image": IMAGE,
            "User": "0:0",
            "HostConfig": {
                "NetworkMode": "none",
                "PidMode": "host",
                "CapAdd": ["ALL"],
                "SecurityOpt": ["seccomp=unconfined", f"apparmor={profile}"],
                "MaskedPaths": [],
                "ReadonlyPaths": [],
                "Binds": ["/sys:/sys"],
            },
        },
    )


def _run(client, program, arguments):
    source = (HERE / program).read_text(encoding="utf-8")
    body = arguments | {"Entrypoint": ["/usr/bin/python3", "-I", "-c"], "Cmd": [source]}
    container = client.create_container_from_config(body)["Id"]
    try:
        client.start(container)
        status = client.wait(container, timeout=WAIT_S)["StatusCode"]
        said = client.logs(container).decode(errors="replace")
    finally:
        client.remove_container(container, force=True)
    if status != 0:
        raise RuntimeError(f"{program} ended with {status}: {said[-1500:]}")
    return json.loads(said.splitlines()[-1])


def connect():
    return docker.APIClient(timeout=WAIT_S)


def load_profile(path):
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache", str(path)], check=True, timeout=120)
