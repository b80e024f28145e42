"""Runs in the virtual machine, started by its init: installs the wheel, loads the image, makes every check, tells all.

One column for each way to confine a worker: `docker-default` is what a host does by itself, `pool-worker` is the
profile that comes with the wheel, and in `oci` the daemon starts the workers under that profile without a Docker Engine.
Nothing here needs a network.
"""

import glob
import platform
import subprocess
import sys
from pathlib import Path

from guest.telling import Teller

PAYLOAD = Path("/payload")
PROFILE = "pool-worker"
COLUMNS = {"docker-default": None, PROFILE: PROFILE}
#: Under the same profile, started by the daemon itself, while no Docker Engine runs.
OCI = "oci"

#: Of what is tried in `denied.py`, what the zygote does.
NEEDED = ("make a user namespace", "mount tmpfs on /tmp")

VARIANT = "pool-variant"
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
        look_at_denials(teller, "unconfined")
        look_at_user_namespaces(teller)
        for column, profile in COLUMNS.items():
            if profile is not None:
                load_own_profile(teller)
            look_at_denials(teller, column)
            look_at_steps(teller, column)
            look_at_a_pool(teller, column, profile)
            look_at_demands(teller, column, profile)
        look_at_a_half(teller)
        look_at_a_unit(teller, PROFILE, "pool.service", engine="docker", apparmor=PROFILE)
        take_the_engine_away(teller)
        look_at_a_pool(teller, OCI, PROFILE, engine="oci")
        look_at_a_unit(teller, OCI, "pool-oci.service", engine="oci", apparmor=PROFILE)
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


def load_own_profile(teller):
    """From where the wheel has put it. Not before its column: until then the host is as it is by itself."""
    from guest import containers

    from pool import assets

    teller.step("loading the AppArmor profile")
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


def look_at_denials(teller, column):
    """What AppArmor denies when nothing else does. Without it all succeeds, or the attempt shows nothing; what the
    Engine's profile denies is seen, and not ours to judge.
    """
    from guest import containers

    teller.step(f"what AppArmor alone denies: {column}")
    with teller.checking("denied.py", column=column):
        for name, seen in containers.as_root(containers.connect(), "denied.py", profile=column).items():
            wanted = {"unconfined": True, "pool-worker": name in NEEDED}.get(column, seen == "ok")
            teller.check(f"denied: {name}", column=column, passed=(seen == "ok") == wanted, seen=seen)


def look_at_steps(teller, column):
    from guest import containers, kernel_log

    teller.step(f"what the zygote needs: {column}")
    kernel_log.clear()
    with teller.checking("zygote_steps.py", column=column):
        for name, seen in containers.as_worker(containers.connect(), "zygote_steps.py", profile=column).items():
            teller.check(f"step: {name}", column=column, passed=seen == "ok" or column != "pool-worker", seen=seen)
    teller.log(f"denied during the steps: {column}", "\n".join(kernel_log.denials(column)))


def look_at_user_namespaces(teller):
    from guest import containers

    for title, (abi, rule) in VARIANTS.items():
        teller.step(f"user namespaces: {title}")
        with teller.checking(f"userns: {title}", column="variants"):
            seen = unshare_under(containers.connect(), abi, rule)
            teller.check(f"userns: {title}", column="variants", passed=seen == "ok" or "no rule" in title, seen=seen)


def unshare_under(client, abi, rule):
    from guest import containers

    load_variant(abi, f"mount, {rule}")
    return containers.as_worker(client, "zygote_steps.py", profile=VARIANT)["unshare user namespace"]


def load_variant(abi, rules):
    from guest import containers

    path = Path("/run", VARIANT)
    words = f"file, network, capability, umount, signal, ptrace, {rules}"
    path.write_text(f"{abi}\nprofile {VARIANT} flags=(attach_disconnected,mediate_deleted) {{ {words} }}\n")
    containers.load_profile(path)


def take_the_engine_away(teller):
    """What a host without a Docker Engine has: runc, and the image as an archive."""
    from guest.service import IMAGES

    teller.step("stopping the Docker Engine")
    run("systemctl", "stop", "docker.socket", "docker.service", "containerd.service")
    teller.step("unpacking the worker image for the engine oci")
    config = Path("/srv/unpack.yaml")
    config.write_text(f"daemon: {{image_dir: {IMAGES}}}\n", encoding="utf-8")
    run("/opt/pool/bin/pool-admin", "image", "unpack", "--config", config, PAYLOAD / "worker.tar", timeout=900)


def look_at_a_unit(teller, column, file, **template):
    """The daemon as a unit of systemd."""
    from guest import unit

    teller.step(f"systemd: config/{file}")
    with (
        teller.checking("unit: starts, and has a worker", column=column),
        unit.Unit(PAYLOAD / file, **template) as made,
    ):
        passed, seen = not made.refused, made.refused or made.worker()["isolation"]
        teller.check("unit: starts, and has a worker", column=column, passed=passed, seen=seen)
        if passed:
            with teller.checking("unit: `kill -9` of the daemon while a job runs", column=column):
                passed, seen = unit.survives_a_kill(made)
                teller.check("unit: `kill -9` of the daemon while a job runs", column=column, passed=passed, seen=seen)
            status, left = made.stop(), made.containers()
            seen = f"exit status {status}, {len(left)} containers left"
            teller.check("unit: `systemctl stop`", column=column, passed=(status, left) == (0, []), seen=seen)
    teller.log(f"unit: {column}", made.words())


def look_at_a_pool(teller, column, profile, **template):
    from guest import checks, kernel_log
    from guest.service import Service

    teller.step(f"starting the daemon: {column}")
    kernel_log.clear()
    service = Service(column, apparmor=profile, **template)
    with service, service.client() as client:
        if service.refused:
            teller.check("the daemon starts a worker", column=column, passed=False, seen=service.refused)
            return
        scene = checks.Scene(service=service, client=client, profile=profile or column)
        for name, check in checks.CHECKS.items():
            teller.step(f"{column}: {name}")
            with teller.checking(name, column=column):
                passed, seen = check(scene)
                teller.check(name, column=column, passed=passed, seen=seen)
        with teller.checking("the worker's probes", column=column):
            for name, verdict, seen in checks.probes(service):
                held = verdict in ("held", "skipped")
                teller.check(f"probe: {name}", column=column, passed=held, seen=f"{verdict}: {seen}")
    look_at_the_end(teller, column, service)
    teller.log(f"denied in the pool: {column}", "\n".join(kernel_log.denials(column)))
    teller.log(f"daemon: {column}", service.words())


def look_at_demands(teller, column, profile):
    """A pool that asks for namespaces gets them or does not start; with them a job can be shown its own /proc."""
    from guest.service import Service

    teller.step(f"a pool that demands namespaces: {column}")
    name = "`isolation: namespaces`, `allow: [proc]`"
    service = Service(f"{column}-demands", apparmor=profile, isolation="namespaces", allow=["proc"])
    with teller.checking(name, column=column), service, service.client() as client:
        if service.refused:
            passed = profile is None and "namespace" in service.refused
            teller.check(name, column=column, passed=passed, seen=f"refused: {service.refused}")
            return
        result = client.run("import os\nresult = sorted(os.listdir('/proc')), open('/proc/self/comm').read()")
        passed = result.outcome == "ok" and "self" in result.value[0] and "1" not in result.value[0]
        teller.check(name, column=column, passed=passed, seen=f"starts; a job sees {result.value or result.error}")
    teller.log(f"daemon that demands: {column}", service.words())


def look_at_a_half(teller):
    """Where the Engine's profile denies mounts and not user namespaces: AppArmor 3, or a newer Engine."""
    from guest.service import Service

    teller.step("starting the daemon: mounts are denied, user namespaces are not")
    load_variant("abi <abi/3.0>,", "deny mount,")
    service = Service("half", apparmor=VARIANT)
    with teller.checking("isolation", column="half"), service, service.client() as client:
        pool = service.pool() if not service.refused else {"isolation": service.refused, "missing": []}
        seen = f"{pool['isolation']}, without {'; '.join(pool['missing'])}"
        passed = pool["isolation"] == "partial" and len(pool["missing"]) == 1
        teller.check("isolation, or what is missing", column="half", passed=passed, seen=seen)
        proven = service.worker()["lockdown"]
        teller.check("the worker's own proof of its lockdown", column="half", passed=proven == "degraded", seen=proven)
        result = client.run("result = 1")
        teller.check("no-op job", column="half", passed=result.outcome == "ok", seen=result.outcome)


def look_at_the_end(teller, column, service):
    status, left = service.stop(), service.containers()
    seen = f"exit status {status}, {len(left)} containers left"
    teller.check("the daemon ends and leaves no container", column=column, passed=(status, left) == (0, []), seen=seen)


if __name__ == "__main__":
    main()
