"""Known vulnerabilities of the kernel, runc and the Engine, by version, with the reason why a worker cannot use each.

    version ──▶ upstream part ──▶ in a range [from, fixed)? ──▶ named in the package's changelog? ──▶ open

A distribution fixes old versions without a new number: `1.1.5+ds1-1+deb12u1` has fixes that 1.1.5 does not have. Where
the package's changelog can be read, a CVE that it names counts as fixed. Otherwise the finding says that it may be.

The table is small on purpose. It has what can matter to a host that runs workers, from publications of the projects
and distributions. Kernels are judged by the branches whose first fixed release is known.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from pool.doctor.facts import HostFinding, ok, problem, unknown, warning

BACKPORTED = "the version alone does not show a fix that the distribution has ported back: ask its security tracker"


@dataclass(frozen=True, slots=True)
class Advisory:
    id: str
    component: str
    affected: tuple[tuple[str, str], ...]  #: the first affected version, and the first one with the fix
    what: str
    defused: str  #: why it does not work from inside a worker; "" if it does, or if no worker is needed

    @property
    def fixed(self) -> str:
        return ", ".join(fix for _, fix in self.affected)


_OWN_IMAGE = "workers run an image that was built here, from a fixed specification"
_NO_MOUNTS = "no container can write to what another one mounts, and none is created by a job"
_NO_PLUGIN = "workers do not rely on authorization plugins"
_NO_COPY = "the daemon never copies into or out of a worker; do not `docker cp` with one yourself"

ADVISORIES = (
    Advisory(
        "CVE-2019-5736",
        "runc",
        (("0", "1.0.0-rc7"),),
        "root in a container overwrites the host's runc",
        "nobody is root in a worker",
    ),
    Advisory(
        "CVE-2021-30465", "runc", (("0", "1.0.0-rc95"),), "a mount is led out of the container by a race", _NO_MOUNTS
    ),
    Advisory(
        "CVE-2023-27561", "runc", (("0", "1.1.5"),), "mounts over /proc avoid the container's confinement", _NO_MOUNTS
    ),
    Advisory("CVE-2023-28642", "runc", (("0", "1.1.5"),), "a linked /proc avoids AppArmor and SELinux", _OWN_IMAGE),
    Advisory(
        "CVE-2024-21626",
        "runc",
        (("0", "1.1.12"),),
        "a leaked descriptor as the working directory gives the host's files",
        "the working directory of a worker is fixed, and nothing is executed into one from outside",
    ),
    Advisory(
        "CVE-2024-45310",
        "runc",
        (("0", "1.1.14"), ("1.2.0-rc.1", "1.2.0-rc.3")),
        "empty files are made on the host by a race on a shared volume",
        _NO_MOUNTS,
    ),
    *(
        Advisory(
            name, "runc", (("0", "1.2.8"), ("1.3.0-rc.1", "1.3.3"), ("1.4.0-rc.1", "1.4.0-rc.3")), what, _NO_MOUNTS
        )
        for name, what in (
            ("CVE-2025-31133", "masked paths of /proc are left open by a race at the start"),
            ("CVE-2025-52565", "the console of a container is mounted over another path by a race at the start"),
            ("CVE-2025-52881", "writes to /proc are led elsewhere by a race at the start"),
        )
    ),
    Advisory(
        "CVE-2026-41579",
        "runc",
        (("0", "1.3.6"), ("1.4.0-rc.1", "1.4.3")),
        "an image whose /dev is a link writes a little to the host",
        _OWN_IMAGE,
    ),
    Advisory(
        "CVE-2020-15257",
        "containerd",
        (("0", "1.3.9"), ("1.4.0", "1.4.3")),
        "root in the host's network commands containerd",
        "workers have no network and nobody is root in one",
    ),
    Advisory(
        "CVE-2022-23648",
        "containerd",
        (("0", "1.4.13"), ("1.5.0", "1.5.10"), ("1.6.0", "1.6.1")),
        "volumes of an image read the host's files",
        _OWN_IMAGE,
    ),
    Advisory(
        "CVE-2024-25621",
        "containerd",
        (("0", "1.7.29"), ("2.0.0", "2.0.7"), ("2.1.0", "2.1.5"), ("2.2.0-rc.0", "2.2.0")),
        "containerd's directories are open to the users of the host",
        "",
    ),
    Advisory(
        "CVE-2024-40635",
        "containerd",
        (("0", "1.6.38"), ("1.7.0", "1.7.27"), ("2.0.0", "2.0.4")),
        "a user id of more than 31 bits becomes root",
        "the daemon chooses the user id of a worker, and a small one",
    ),
    Advisory(
        "CVE-2026-47262",
        "containerd",
        (("0", "1.7.33"), ("2.0.0", "2.0.10"), ("2.1.0", "2.1.9"), ("2.2.0", "2.2.5"), ("2.3.0", "2.3.2")),
        "the groups in an image take all of containerd's memory",
        _OWN_IMAGE,
    ),
    Advisory(
        "CVE-2024-29018",
        "docker",
        (("0", "23.0.11"), ("24.0.0", "25.0.5"), ("26.0.0-rc1", "26.0.0-rc3")),
        "names are looked up outside of an internal network",
        "workers have no network",
    ),
    Advisory(
        "CVE-2024-41110",
        "docker",
        (("0", "23.0.15"), ("24.0.0", "25.0.6"), ("26.0.0", "26.1.5"), ("27.0.0", "27.1.1")),
        "a request without a body gets past authorization plugins",
        _NO_PLUGIN,
    ),
    Advisory(
        "CVE-2026-34040",
        "docker",
        (("0", "29.3.1"),),
        "a request with too large a body gets past authorization plugins",
        _NO_PLUGIN,
    ),
    Advisory("CVE-2026-41567", "docker", (("0", "29.5.1"),), "`docker cp` runs a program of the container", _NO_COPY),
    Advisory("CVE-2026-41568", "docker", (("0", "29.5.1"),), "`docker cp` makes empty files on the host", _NO_COPY),
    Advisory("CVE-2026-42306", "docker", (("0", "29.5.1"),), "`docker cp` mounts over a path of the host", _NO_COPY),
    Advisory(
        "CVE-2026-31431",
        "kernel",
        (("6.18", "6.18.22"), ("6.19", "6.19.12")),
        "sockets of AF_ALG write to files that are only readable",
        "workers have no sockets but AF_UNIX",
    ),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A component's version, in its upstream part and the distribution's part."""

    upstream: Version
    packaged: bool  #: a distribution's build, which may have fixes that the number does not show


_FORM = re.compile(r"v?(\d+(?:\.\d+)+)(?:[-~.]?(rc|beta|alpha)[-.~]?(\d+))?(.*)", re.DOTALL)
#: What `git describe` adds to a version. It is not a distribution's part.
_DESCRIBED = re.compile(r"(-\d+-g[0-9a-f]+)?(-dirty|\+unknown|\.m)?")


def release_of(text: str) -> Release | None:
    """`1.1.5+ds1-1+deb12u1`, `v1.2.5-0-g59923ef`, `1.0.0~rc93+ds1-5`, `6.1.0-13-amd64`; None for anything else."""
    found = _FORM.match(text.strip())
    if found is None:
        return None
    numbers, stage, number, rest = found.groups()
    try:
        upstream = Version(numbers + (f"{stage}{number}" if stage else ""))
    except InvalidVersion:
        return None
    return Release(upstream, packaged=_DESCRIBED.fullmatch(rest) is None)


def open_advisories(component: str, release: Release, patched: AbstractSet[str]) -> list[Advisory]:
    """The known vulnerabilities of this release that are not named as fixed."""
    return [
        each
        for each in ADVISORIES
        if each.component == component and each.id not in patched and _within(release.upstream, each.affected)
    ]


def _within(version: Version, ranges: tuple[tuple[str, str], ...]) -> bool:
    return any(Version(first) <= version < Version(fix) for first, fix in ranges)


def advise(component: str, version: str, *, patched: AbstractSet[str] | None) -> HostFinding:
    """The finding about one component. `patched`: the CVEs in the changelog of its package; None: there is none."""
    name = f"advisories-{component}"
    release = release_of(version)
    if release is None:
        return unknown(name, version, "this version cannot be compared; see its project's advisories")
    found = open_advisories(component, release, patched if patched and release.packaged else frozenset())
    if not found:
        return ok(name, f"{version}: none known to doctor")
    seen = f"{version}: {', '.join(each.id for each in found)}"
    unsure = release.packaged and patched is None
    advice = " ".join([*_sentences(found), *([f"({BACKPORTED})"] if unsure else [])])
    certain = not unsure and any(not each.defused for each in found)
    return problem(name, seen, advice) if certain else warning(name, seen, advice)


def _sentences(found: list[Advisory]) -> list[str]:
    """One sentence for all that have the same fixed versions and the same reason."""
    alike: dict[tuple[str, str], list[Advisory]] = {}
    for each in found:
        alike.setdefault((each.fixed, each.defused), []).append(each)
    return [_sentence(fixed, defused, group) for (fixed, defused), group in alike.items()]


def _sentence(fixed: str, defused: str, group: list[Advisory]) -> str:
    what = "; ".join(f"{each.id}: {each.what}" for each in group)
    effect = f"Not known to work from a worker: {defused}." if defused else "Update soon: this needs no worker."
    return f"Fixed in {fixed}: {what}. {effect}"
