"""The system disk: Debian 13 with systemd, Docker Engine, AppArmor, Python 3.13 and what the wheel depends on.

    debootstrap ─▶ root/ ─▶ virtual environment in /opt/pool ─▶ initrd with the disk's driver ─▶ mke2fs -d ─▶ system.ext4

Made once and kept, until its recipe or the wheel's dependencies change. Nothing is mounted to write the disk, and what
debootstrap mounts and starts is gone with the process that makes it, however that ends.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"
PYTHON = "3.13"
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "kmod", "docker.io", "iptables", "apparmor", "python3", "python3-venv",
    "linux-image-cloud-amd64", "initramfs-tools", "zstd",
)  # fmt: skip
#: Grows with what is written to it: the file is sparse.
DISK_SIZE = "6G"
#: Another mirror of Debian's packages than that of this machine.
MIRROR_VARIABLE = "POOL_DEBIAN_MIRROR"

#: Namespaces of its own for what makes the disk: all its processes and mounts end with the first of them.
APART = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")

FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 0\n/dev/vdb /payload ext4 ro 0 0\n",
    "etc/hostname": "host\n",
    "etc/hosts": "127.0.0.1 localhost host\n",
    "etc/initramfs-tools/modules": "virtio_blk\n",
    "etc/initramfs-tools/conf.d/vm": "MODULES=list\nCOMPRESS=zstd\nRESUME=none\n",
    "etc/systemd/journald.conf.d/vm.conf": "[Journal]\nStorage=volatile\n",
    "etc/systemd/system/checks.service": (
        "[Unit]\nDescription=The checks\nRequiresMountsFor=/payload\nAfter=apparmor.service dbus.socket\n"
        "SuccessAction=poweroff-force\nFailureAction=poweroff-force\n"
        "[Service]\nType=oneshot\nWorkingDirectory=/payload\n"
        "ExecStart=/opt/pool/bin/python -m guest.main\nStandardOutput=journal+console\n"
    ),
}
#: The checks start the Engine themselves, when they have told that they run.
COMMANDS = (
    ("systemctl", "enable", "checks.service"),
    ("systemctl", "add-wants", "multi-user.target", "checks.service"),
    ("systemctl", "set-default", "multi-user.target"),
    ("systemctl", "disable", "docker.service", "docker.socket", "containerd.service"),
    ("systemctl", "mask", "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
     "systemd-timesyncd.service", "fstrim.timer", "e2scrub_all.timer", "e2scrub_reap.service"),
    ("update-initramfs", "-u", "-k", "all"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class System:
    disk: Path
    kernel: Path
    initrd: Path


def find_or_make(root, cache, *, rebuild):
    """The system disk for the checkout at `root`."""
    libraries = root / "locks" / PYTHON / "runtime.txt"
    recipe = [Path(__file__).read_bytes(), libraries.read_bytes()]
    digest = hashlib.sha256(b"\0".join(recipe)).hexdigest()[:12]
    place = cache / f"system-{digest}"
    if rebuild or not place.exists():
        for old in (*cache.glob("system-*"), *cache.glob("making-*")):
            shutil.rmtree(old)
        if subprocess.run([*APART, sys.executable, __file__, str(place), str(libraries)], check=False).returncode != 0:
            sys.exit("error: the system disk could not be made; what went wrong is above")
    return System(disk=place / "system.ext4", kernel=place / "vmlinuz", initrd=place / "initrd")


def make(place, libraries):
    with tempfile.TemporaryDirectory(prefix="making-", dir=place.parent) as scratch:
        tree, out = Path(scratch, "root"), Path(scratch, "out")
        out.mkdir()
        mirror = os.environ.get(MIRROR_VARIABLE) or mirror_of_this_machine()
        include = f"--include={','.join(PACKAGES)}"
        run("debootstrap", "--variant=minbase", include, SUITE, tree, *([mirror] if mirror else []))
        for name, text in FILES.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text, encoding="utf-8")
        (tree / "payload").mkdir()
        install_libraries(tree, libraries, Path(scratch, "wheels"))
        for command in COMMANDS:
            run("chroot", tree, *command)
        shutil.copy(next((tree / "boot").glob("vmlinuz-*")), out / "vmlinuz")
        shutil.copy(next((tree / "boot").glob("initrd.img-*")), out / "initrd")
        for name in ("var/cache/apt", "var/lib/apt/lists", "boot"):
            shutil.rmtree(tree / name)
        run("mke2fs", "-q", "-t", "ext4", "-d", tree, out / "system.ext4", DISK_SIZE)
        out.rename(place)


def mirror_of_this_machine():
    """Where apt has Debian's packages from, None if it does not say."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SUITE) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = [line.split()[-1] for line in listed.splitlines() if line.startswith("Debian ")]
    return next((url for url in found if url.rstrip("/").endswith("/debian")), None)


def install_libraries(tree, libraries, wheels):
    """Into /opt/pool of the tree, for its Python, from wheels that this machine's pip downloads; a lock file names them."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 17)] + ["--platform=manylinux2014_x86_64"]
    only = ["--python-version", PYTHON, "--only-binary=:all:", *platforms]
    locked = ["--no-deps", "--require-hashes", "--requirement"]
    run(sys.executable, "-m", "pip", "download", "--quiet", *only, "--dest", wheels, *locked, libraries)
    shutil.copytree(wheels, tree / "wheels")
    shutil.copy(libraries, tree / "wheels" / "libraries.txt")
    run("chroot", tree, "python3", "-m", "venv", "/opt/pool")
    install = ["install", "--quiet", "--no-index", "--find-links", "/wheels", *locked, "/wheels/libraries.txt"]
    run("chroot", tree, "/opt/pool/bin/pip", *install)
    shutil.rmtree(tree / "wheels")


def run(*command):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    words = [str(each) for each in command]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        sys.exit(f"{words[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}")


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
