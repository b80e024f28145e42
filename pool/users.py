"""Users of this host: an id for a name, and a name for an id. The daemon knows clients by user id."""

from __future__ import annotations

import pwd


def uid_of(user: str) -> str:
    """The id of a user who is given by name or id. Raises KeyError where this host has no such name."""
    return user if user.isdecimal() else str(pwd.getpwnam(user).pw_uid)


def with_name(uid: str | None) -> str | None:
    """A user id with its name, `0 (root)`; any other text as it is."""
    if uid is None or not uid.isdecimal():
        return uid
    try:
        return f"{uid} ({pwd.getpwuid(int(uid)).pw_name})"
    except (KeyError, OverflowError):
        return uid
