"""What keeps a job from the worker, and the jobs of one worker from each other: namespaces, Landlock, a second filter.

    launcher ──try──▶ which parts does this host grant?
       └─ enter: user + pid namespace, once ──fork──▶ zygote (process 1 of its namespace)
                                                         │ loads ─ covers, once: nothing on /run and /sys
                                                         └─ for each child: a pid namespace with an init ──fork──▶ child
    child ─ isolate: user, mount, ipc, net namespace; fresh /tmp and /dev/shm; nothing on /proc ─ parks
          ─ seal, once it has its job: size of /tmp, capabilities, Landlock, second filter ─ runs the code

What a child does for this is laid out by the zygote, as far as it can be: code and objects that are not touched need
not be copied, and most of the price of a child is pages that are.

The zygote owns the pid namespaces of its children because it made them in a user namespace of its own: so no right on
the host is needed for any of this. A part that the host refuses is left out and named in `missing`.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Collection

from runner import furniture, job_filter, kernel, landlock
from runner.furniture import Furniture
from runner.kernel import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, Filter
from runner.survey import BARE, DATA_LIMIT, NAMESPACES, Grant

PROC = "proc"
#: Processes and threads of the runner, the zygote and the next child, where a job shares their user namespace.
_OF_THE_WORKER = 8
_IMAGE = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc",
    "/opt/pool",
    "/datasets",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)


def enter() -> None:
    """Into a user namespace of this process's own, and a pid namespace for what it forks next."""
    kernel.own_user_namespace(CLONE_NEWPID)


class Nest:
    """The zygote's side: a pid namespace for each child, with an init that takes the whole of it along."""

    def __init__(self) -> None:
        kernel.set_dumpable(True)  # else its /proc/self is not its own
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        kernel.set_dumpable(False)
        self._init = kernel.Init()

    def open(self) -> int:
        """A new namespace for the next fork; the pid of its init."""
        kernel.unshare(CLONE_NEWPID)
        try:
            return self._init.spawn()
        except OSError:
            self.leave()
            raise

    def leave(self) -> None:
        """What is forked from now on is in the zygote's own again."""
        kernel.setns(self._own, CLONE_NEWPID)


class Confinement:
    """Made once by the zygote, when it has loaded; used by each child."""

    def __init__(self, grant: Grant, options: Collection[str], *, tmp_bytes: int, tmp_inodes: int) -> None:
        self.grant = grant
        self._options = frozenset(options)
        self._tmp_bytes = tmp_bytes
        flags = sum(flag for part, flag in NAMESPACES.items() if part in grant.parts)
        self._unsharing = [kernel.unsharing(CLONE_NEWUSER | flags)]
        self._maps = kernel.identity_maps()
        self._furniture = Furniture(tmp_bytes, tmp_inodes, own_proc=PROC in options)
        self._rules = self._ruleset(landlock.abi()) if "landlock" in grant.parts else None
        self._dropping = [kernel.dropping_capabilities()] if self.nested else []
        self._filters = {each: Filter(job_filter.program(options, explain=each)) for each in (False, True)}

    @property
    def nested(self) -> bool:
        """Whether children have pid and user namespaces of their own."""
        return "user" in self.grant.parts

    @property
    def own_scratch(self) -> bool:
        """Whether each child has a /tmp of its own, which is gone when it is."""
        return "mount" in self.grant.parts

    def memory_limit(self, data: int, mapped: int) -> tuple[int, int]:
        """The limit that this kernel holds, and how much of it a child has used that holds so much."""
        if DATA_LIMIT in self.grant.parts or self.grant is BARE:
            return resource.RLIMIT_DATA, data
        return resource.RLIMIT_AS, mapped

    def process_limit(self, wanted: int) -> int | None:
        """Processes are counted by user and user namespace: in one of its own only the job's, else the worker's too."""
        if self.nested:
            return wanted
        return None if self.grant is BARE else wanted + _OF_THE_WORKER

    def cover(self) -> None:
        """By the zygote: what none of its children is to see."""
        if self.own_scratch:
            kernel.unshare(CLONE_NEWNS)
            furniture.cover()

    def isolate(self) -> None:
        """All that needs a right which is given up later. After this /proc is empty."""
        if self.nested:
            kernel.perform(self._unsharing)
            kernel.write_own(self._maps)  # and no setgroups(): what its maker denies itself is denied to it
        if self.own_scratch:
            self._furniture.place()
        if self._rules is not None:
            self._rules.make()

    def seal(self, *, tmp_bytes: int, explain: bool) -> None:
        """Give up every right. What follows is the job's code."""
        if self.own_scratch and tmp_bytes != self._tmp_bytes:
            self._furniture.resize(tmp_bytes)
        kernel.perform(self._dropping)
        if self._rules is not None:
            self._rules.apply()
        if "seccomp" in self.grant.parts:
            self._filters[explain].install()

    def _ruleset(self, abi: int) -> landlock.Ruleset:
        """A rule costs each job 25 us: there is one for all of the image, where what should not be seen is covered."""
        read = landlock.RUN if job_filter.SUBPROCESS in self._options else landlock.READ
        rights = dict.fromkeys(("/",) if self.own_scratch else _IMAGE, read)
        writable = dict.fromkeys(("/tmp", "/dev/shm"), landlock.WRITE)  # noqa: S108
        return landlock.Ruleset(abi, {**rights, "/dev/null": landlock.DEVICE, **writable})
