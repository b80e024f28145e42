"""What the tests of both engines ask for: one worker, with a value of its own in each field."""

from pathlib import Path

from pool.engines.base import Mount, WorkerSpec

SPEC = WorkerSpec(
    worker_id="w1", pool="default", owner="owner1", instance="run1", image="pool-worker:latest", runtime=None,
    uid=70001, command=("--link", "/run/pool/link.sock"),
    mounts=(Mount(source=Path("/srv/prices.npy"), target="/datasets/prices.npy"),), memory_bytes=512 << 20, cpus=1.5,
    processes=32, tmp_bytes=64 << 20, tmp_inodes=1000, nofile=512,
)  # fmt: skip
