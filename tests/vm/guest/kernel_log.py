"""What the kernel logged of AppArmor's denials: there is no audit daemon here, so they are among its messages."""

import re
import subprocess

_FIELD = re.compile(r'(\w+)="?([^" ]*)')


def clear():
    subprocess.run(["dmesg", "--clear"], check=True, timeout=30)


def denials(profile):
    """Operation and object of each kind, with how often."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=30, check=True).stdout
    counted = {}
    for line in log.splitlines():
        if 'apparmor="DENIED"' in line and f'profile="{profile}"' in line:
            fields = dict(_FIELD.findall(line.partition("apparmor=")[2]))
            words = [
                fields.get(name) for name in ("operation", "srcname", "name", "capname", "fstype", "peer", "flags")
            ]
            what = re.sub(r"\d+", "N", " ".join(word for word in words if word))
            counted[what] = counted.get(what, 0) + 1
    return [f"{what} ({times})" for what, times in counted.items()]
