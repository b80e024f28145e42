"""Local workers of root and of a user without privileges, and the same code in a plain process.

local(code, *args, limits={}, screened=False)   {"outcome", "value", "reason", "free"}
outside(code, *args)                            what main returned, in a plain process of this host
"""

import contextlib
import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import python

ROOT = Path(__file__).parents[2]
HOST = Path(__file__).with_name("host.py")
NOBODY = 65534
_OUTSIDE = """
import json, sys
scope = {"__name__": "job"}
code, arguments = json.load(sys.stdin)
exec(compile(code, "<job>", "exec"), scope)
print(json.dumps(scope["main"](*arguments), default=repr))
"""


class Caller:
    """host.py in a process of its own."""

    def __init__(self, process):
        self.process = process
        self.first = json.loads(process.stdout.readline() or "{}")

    def __call__(self, code, *arguments, limits=None, screened=False):
        print(json.dumps([code, arguments, limits or {}, screened]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def caller(user, python=None):
    """A Caller as this user: None is the user of the tests."""
    command = [python or _python(user), str(HOST), str(ROOT), *site.getsitepackages()]
    as_user = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", env=_environment(), **as_user
    ) as process:
        try:
            yield Caller(process)
        finally:
            process.stdin.close()


def _python(user):
    """A Python of this version that the user may read: that of the tests is often in the home of root."""
    if user is None:
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")):
        if path is not None and _runs(path, user):
            return path
    pytest.skip(f"user {user} has no {version} on this host")


def _runs(path, user):
    paths = [str(ROOT), *site.getsitepackages()]
    command = [path, "-c", f"import sys; sys.path[:0] = {paths!r}; import msgspec, pool.errors, zmq"]
    with contextlib.suppress(OSError):
        as_user = {"user": user, "group": user, "extra_groups": []}
        found = subprocess.run(command, check=False, cwd="/", env=_environment(), capture_output=True, **as_user)
        return found.returncode == 0
    return False


def _environment():
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def granted(found):
    """Skip where the host does not let this user lock anything down: in most containers."""
    if found.first.get("error") == "NoLockdownError":
        pytest.skip(found.first["message"])
    return found


@pytest.fixture(scope="session", params=["the user of the tests", "a user without privileges"])
def local(request):
    user = None if request.param == "the user of the tests" else NOBODY
    if user is not None and os.geteuid() != 0:
        pytest.skip("the user of the tests has no privileges already")
    with caller(user) as found:
        yield granted(found)


@pytest.fixture(scope="session")
def outside():
    def run(code, *arguments):
        process = python("-c", _OUTSIDE, input=json.dumps([code, arguments]), env=_environment())  # fmt: skip
        return json.loads(process.stdout) if process.returncode == 0 else process.stderr

    return run
