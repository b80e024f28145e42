"""One worker container as the daemon would start it, driven over its link by a benchmark alone.

What is counted is the work of the worker and of the kernel for it, as CPU time of the container's cgroup.
"""

import secrets
import shutil
import tempfile
from pathlib import Path

import zmq

from pool import values, wire
from pool.engines.base import Engine, Mount, WorkerSpec

IMAGE = "pool-worker:latest"
LIMITS = {
    "wall_s": 10,
    "cpu_s": 10,
    "memory": 256 << 20,
    "tmp": 64 << 20,
    "output": 1 << 20,
    "result": 1 << 20,
    "processes": 32,
}
OWNER = f"bench-{secrets.token_hex(4)}"


class Worker:
    """One container, and this end of its link."""

    def __init__(self, engine: Engine, *, level: str = "auto", preload: str = "", image: str = IMAGE) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="bench."))
        self._home.chmod(0o711)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.link = self._context.socket(zmq.PAIR)
        path = self._home / "link.sock"
        self.link.bind(f"ipc://{path}")
        path.chmod(0o666)
        self._container = engine.launch(self._spec(level, preload, image))
        self._count = 0
        self._cgroup = cpu_file(self._container.pid())
        self._arguments = [bytes(frame) for frame in values.encode([[1], {}], max_bytes=4096)]
        self.ready = self._await_ready()

    def _await_ready(self) -> wire.Ready:
        while not isinstance(message := self.hear(), wire.Ready):
            pass
        return message

    def _spec(self, level: str, preload: str, image: str) -> WorkerSpec:
        command = ["--link", "/run/pool/link.sock", "--scratch", "/tmp", "--scratch", "/dev/shm", "--isolation", level]
        return WorkerSpec(
            worker_id=f"{level}-{secrets.token_hex(3)}",
            pool="bench",
            owner=OWNER,
            instance=OWNER,
            image=image,
            runtime=None,
            uid=2_000_200_000,
            command=tuple([*command, "--preload", preload] if preload else command),
            mounts=(Mount(source=self._home, target="/run/pool"),),
            memory_bytes=512 << 20,
            cpus=2.0,
            processes=44,
            tmp_bytes=64 << 20,
            tmp_inodes=4096,
            nofile=256,
        )

    def send(self, code: bytes) -> None:
        """Send a job whose entry is `main`, with one argument. An answer without an epoch need not be acknowledged."""
        self._count += 1
        job = wire.Run(job_id=f"job-{self._count}", epoch=0, entry="main", **LIMITS)  # type: ignore[arg-type]
        self.link.send_multipart(wire.encode(job, [code, b"", *self._arguments]))

    def hear(self) -> wire.FromRunner:
        """Wait for the next message. A job that did not end well is an error."""
        if not self.link.poll(30_000):
            raise TimeoutError(f"the worker is silent: {self._container.diagnose()}")
        message, _ = wire.decode(wire.from_runner, self.link.recv_multipart())
        if isinstance(message, wire.Broken):
            raise RuntimeError(message.reason)  # noqa: TRY004 - it is what the worker says
        if isinstance(message, wire.Done) and message.outcome != "ok":
            raise RuntimeError(f"the job ended with {message.outcome}: {message.reason}")
        return message

    def cpu_s(self) -> float:
        """CPU time of everything that was ever in the container."""
        return cpu_s(self._cgroup)

    def pids(self) -> list[int]:
        """Of everything in the container now, on the host."""
        return [int(line) for line in (self._cgroup.parent / "cgroup.procs").read_text(encoding="ascii").split()]

    def close(self) -> None:
        self._container.kill()
        self._context.destroy(linger=0)
        shutil.rmtree(self._home)


def cpu_file(pid: int | None) -> Path:
    """The file with the CPU time of the container of this process."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers:
            return Path("/sys/fs/cgroup/cpuacct", path.lstrip("/"), "cpuacct.usage")
        if not controllers and (found := Path("/sys/fs/cgroup", path.lstrip("/"), "cpu.stat")).exists():
            return found
    raise RuntimeError("the container has no cgroup that counts CPU time")


def cpu_s(file: Path) -> float:
    text = file.read_text(encoding="ascii")
    return int(text.split()[1]) / 1e6 if file.name == "cpu.stat" else int(text) / 1e9
