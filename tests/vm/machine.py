"""The virtual machine: qemu by software emulation, its console in a log, what the checks tell as lines of JSON.

It boots the kernel directly, without a boot loader, from disks that it does not change: what it writes goes to a
temporary file that is gone with it. There is no network device. It has one core: emulating two side by side, qemu 7.2 now
and then runs an instruction that the kernel has just patched, and the kernel dies of it.

It ends by itself. One that says nothing for long, on its second serial port, is killed by its pid; so it is when this
process ends for whatever reason.
"""

import json
import subprocess
import time

EMULATOR = "qemu-system-x86_64"
MEMORY = "3072"
COMMAND_LINE = (
    "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=true panic=-1 "
    "apparmor=1 security=apparmor lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,bpf"
)
#: Emulated, on a busy machine: from the kernel to the first word of the checks, and between two of its words.
BOOT_S, SILENCE_S, ALL_S = 300, 900, 3600


class MachineError(Exception):
    """It did not end well; the message names the step and shows the end of the console's log."""


def boot(system, payload, cache, *, hear):
    """Run it to its end; `hear` is called with each thing that the checks tell."""
    results, console = cache / "results.jsonl", cache / "console.log"
    for path in (results, console):
        path.write_bytes(b"")
    process = subprocess.Popen(arguments(system, payload, results, console), stdin=subprocess.DEVNULL)
    try:
        return listen(process, results, console, hear=hear)
    finally:
        process.kill()
        process.wait()


def arguments(system, payload, results, console):
    return [
        "setpriv", "--pdeathsig", "KILL", EMULATOR, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY,
        "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none",
        "-serial", f"file:{console}", "-serial", f"file:{results}",
        "-kernel", str(system.kernel), "-initrd", str(system.initrd), "-append", COMMAND_LINE,
        "-drive", f"file={system.disk},format=raw,if=virtio,snapshot=on",
        "-drive", f"file={payload},format=raw,if=virtio,readonly=on",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


def listen(process, results, console, *, hear):
    started = heard = time.monotonic()
    patience, last, pending = BOOT_S, "the boot", b""
    with results.open("rb") as lines:
        while True:
            ended = process.poll() is not None
            for line in lines:
                pending += line
                if not pending.endswith(b"\n"):
                    continue
                told, pending = json.loads(pending), b""
                heard, patience = time.monotonic(), SILENCE_S
                last = told.get("step", last)
                hear(told)
                if "end" in told:
                    return
            if ended:
                raise MachineError(f"the machine ended during: {last}\n{tail(console)}")
            now = time.monotonic()
            if now - heard > patience or now - started > ALL_S:
                raise MachineError(f"nothing heard for {now - heard:.0f} s during: {last}\n{tail(console)}")
            time.sleep(0.2)


def tail(console):
    return "the end of its console:\n" + console.read_text(errors="replace")[-4000:]
