"""The payload disk: the wheel, a worker image that is built from that wheel, the checks.

All are of one state of the checkout: the image is not built from the checkout but from the wheel, so that the daemon
and its workers agree on their sources also while somebody is editing.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import docker
from docker.errors import APIError

HERE = Path(__file__).parent
IMAGE = "pool-worker:vm"
DISK_SIZE = "1G"


def find_or_make(root, cache, *, rebuild):
    """The payload disk for the checkout at `root`; quick when nothing has changed."""
    for old in cache.glob("packing-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="packing-", dir=cache) as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        wheel = build_wheel(root, tree)
        shutil.copytree(HERE / "guest", tree / "guest", ignore=shutil.ignore_patterns("__pycache__"))
        for unit in (root / "config").glob("*.service"):
            shutil.copy(unit, tree)
        image = worker_image(wheel, cache, scratch=Path(scratch), rebuild=rebuild)
        os.link(image, tree / "worker.tar")
        disk = cache / "payload.ext4"
        disk.unlink(missing_ok=True)
        run("mke2fs", "-q", "-t", "ext4", "-d", tree, disk, DISK_SIZE)
    return disk


def build_wheel(root, tree):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tree, root)
    (wheel,) = tree.glob("*.whl")
    return wheel


def worker_image(wheel, cache, *, scratch, rebuild):
    """The image as a file, made anew when the wheel has changed."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()[:12]
    kept = cache / f"worker-{digest}.tar"
    if rebuild or not kept.exists():
        for old in cache.glob("worker-*.tar"):
            old.unlink()
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch / "site")
        path = {"PYTHONPATH": str(scratch / "site")}
        run(sys.executable, "-m", "pool.cli.admin", "image", "build", "--tag", IMAGE, cwd=scratch, env=path)
        save(scratch / "worker.tar")
        (scratch / "worker.tar").rename(kept)
    return kept


def save(path):
    client = docker.from_env(timeout=300).api
    try:
        with path.open("wb") as file:
            for part in client.get_image(IMAGE):
                file.write(part)
    finally:
        with contextlib.suppress(APIError):  # it is somebody else's as well, under another name
            client.remove_image(IMAGE)
        client.close()


def run(*command, cwd=None, env=None):
    words = [str(each) for each in command]
    path = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **path, **(env or {})}
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(words[:4])} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
