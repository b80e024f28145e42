"""Reads who owns what, and what the distribution says it has mended. Nothing here raises."""

from __future__ import annotations

import grp
import gzip
import pwd
import re
import stat
from pathlib import Path

from pool.doctor.facts import Entry

#: Debian's packages of each component, and where their changelogs are.
PACKAGES = {"runc": ("runc",), "containerd": ("containerd",), "docker": ("docker.io",)}
CHANGELOGS = Path("/usr/share/doc")
MAX_CHANGELOG_BYTES = 4 << 20


def entry(path: Path) -> Entry | None:
    """The thing itself, also where a link leads to it; None when it cannot be looked at."""
    try:
        found = path.stat()
        parents = [(each, each.stat().st_mode) for each in path.resolve().parents]
    except (OSError, ValueError):
        return None
    return Entry(
        path=str(path),
        owner=_user(found.st_uid),
        group=_group(found.st_gid),
        mode=stat.S_IMODE(found.st_mode),
        members=_members(found.st_gid),
        loose=tuple(str(each) for each, mode in parents if mode & stat.S_IWOTH and not mode & stat.S_ISVTX),
    )


def changelogs() -> dict[str, frozenset[str]]:
    """For each component, the CVEs that the changelog of its installed package names."""
    found = {}
    for component, packages in PACKAGES.items():
        for package in packages:
            text = _changelog(CHANGELOGS / package / "changelog.Debian.gz")
            if text:
                found[component] = frozenset(re.findall(r"CVE-\d{4}-\d{4,}", text))
    return found


def _changelog(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            return file.read(MAX_CHANGELOG_BYTES).decode("utf-8", "replace")
    except (OSError, EOFError):
        return ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _members(gid: int) -> tuple[str, ...]:
    """Who is in a group, by its list or as their first group; without root, who may do everything anyway."""
    try:
        listed = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        listed = set()
    listed |= {each.pw_name for each in pwd.getpwall() if each.pw_gid == gid}
    return tuple(sorted(listed - {"root"}))
