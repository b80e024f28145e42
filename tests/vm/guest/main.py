"""Runs in the virtual machine, started by its init: installs the wheel, loads the image, makes every check, tells all.

One column for each way to confine a worker: `docker-default` is what a host does by itself, `pool-worker` is the
profile that comes with the wheel. Nothing here needs a network.
"""

from __future__ import annotations

import glob
import platform
import subprocess
import sys
from pathlib import Path

from guest.telling import Teller

PAYLOAD = Path("/payload")
COLUMNS = {"docker-default": None, "pool-worker": "pool-worker"}

#: Ways to write a profile that says nothing, or yes, about user namespaces.
VARIANTS = {
    "abi 3.0, no rule": ("abi <abi/3.0>,", ""),
    "no abi, no rule": ("", ""),
    "abi 4.0, no rule": ("abi <abi/4.0>,", ""),
    "abi 4.0, `userns,`": ("abi <abi/4.0>,", "userns,"),
}


def main():
    teller = Teller()
    try:
        prepare(teller)
        look_at_the_host(teller)
        look_at_the_profiles(teller)
        for column, profile in COLUMNS.items():
            look_at_a_pool(teller, column, profile)
        teller.end("all steps were taken")
    except BaseException as error:
        teller.end(f"gave up: {type(error).__name__}: {error}")
        raise


def run(*command, timeout=300):
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout.strip()


def prepare(teller):
    teller.step("installing the wheel")
    run(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", *glob.glob(f"{PAYLOAD}/*.whl"))
    teller.step("waiting for the Docker Engine")
    run("systemctl", "start", "docker.service")
    teller.step("loading the worker image")
    load_image(PAYLOAD / "worker.tar")
    teller.step("loading the AppArmor profile")
    load_own_profile()


def load_own_profile():
    """From where the wheel has put it."""
    from guest import containers

    from pool import assets

    containers.load_profile(assets.apparmor_profile())


def load_image(path):
    from guest import containers

    with path.open("rb") as file:
        containers.connect().load_image(file)


def look_at_the_host(teller):
    from guest import containers
    from guest.checks import landlock_abi

    teller.step("looking at the host")
    engine = containers.connect().info()
    facts = {
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
        "Docker Engine": engine["ServerVersion"],
        "cgroups": f"version {engine['CgroupVersion']}, {engine['CgroupDriver']} driver",
        "containerd": run("containerd", "--version").split()[2],
        "runc": run("runc", "--version").splitlines()[0].split()[-1],
        "AppArmor": run("apparmor_parser", "--version").splitlines()[0].split()[-1],
        "security modules": Path("/sys/kernel/security/lsm").read_text().strip(),
        "Landlock ABI": landlock_abi(),
        "Python of the daemon": platform.python_version(),
        "pool-daemon": run("/opt/pool/bin/pool-daemon", "--version"),
    }
    for name, value in facts.items():
        teller.fact(name, value)


def look_at_the_profiles(teller):
    from guest import containers, kernel_log

    client = containers.connect()
    for column in ("unconfined", *COLUMNS):
        teller.step(f"what AppArmor alone denies: {column}")
        with teller.checking("denied.py", column=column):
            for name, seen in containers.as_root(client, "denied.py", profile=column).items():
                teller.check(f"denied: {name}", column=column, passed=True, seen=seen)
    for column in COLUMNS:
        teller.step(f"what the zygote needs: {column}")
        kernel_log.clear()
        with teller.checking("zygote_steps.py", column=column):
            for name, seen in containers.as_worker(client, "zygote_steps.py", profile=column).items():
                teller.check(f"step: {name}", column=column, passed=seen == "ok" or column != "pool-worker", seen=seen)
        teller.log(f"denied during the steps: {column}", "\n".join(kernel_log.denials(column)))
    for title, (abi, rule) in VARIANTS.items():
        teller.step(f"user namespaces: {title}")
        with teller.checking(f"userns: {title}", column="variants"):
            seen = unshare_under(client, abi, rule)
            teller.check(f"userns: {title}", column="variants", passed=True, seen=seen)


def unshare_under(client, abi, rule):
    from guest import containers

    profile = Path("/run/pool-variant.apparmor")
    rules = f"file, network, capability, mount, umount, remount, signal, ptrace, {rule}"
    profile.write_text(f"{abi}\nprofile pool-variant flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n")
    containers.load_profile(profile)
    return containers.as_worker(client, "zygote_steps.py", profile="pool-variant")["unshare user namespace"]


def look_at_a_pool(teller, column, profile):
    from guest import containers, kernel_log
    from guest.checks import CHECKS, Scene
    from guest.service import Service

    teller.step(f"starting the daemon: {column}")
    kernel_log.clear()
    service = Service(column, profile)
    try:
        with service, service.client() as client:
            scene = Scene(service=service, client=client, docker=containers.connect(), profile=column)
            for name, check in CHECKS.items():
                teller.step(f"{column}: {name}")
                with teller.checking(name, column=column):
                    passed, seen = check(scene)
                    teller.check(name, column=column, passed=passed, seen=seen)
        look_at_the_end(teller, column, service, scene)
    except Exception as error:  # noqa: BLE001
        teller.check("the daemon starts a worker", column=column, passed=False, seen=error)
    teller.log(f"denied in the pool: {column}", "\n".join(kernel_log.denials(column)))
    teller.log(f"daemon: {column}", service.words())


def look_at_the_end(teller, column, service, scene):
    left = scene.docker.containers(all=True, filters={"label": "pool.owner"})
    status = service.stop()
    seen = f"exit status {status}, {len(left)} containers left"
    teller.check("the daemon ends and leaves no container", column=column, passed=(status, left) == (0, []), seen=seen)


if __name__ == "__main__":
    main()
