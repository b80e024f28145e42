"""The results of the checks, as JSON and as the page that security.md refers to."""

import json

COLUMNS = ("docker-default", "pool-worker")
#: With a column for what the daemon does without a Docker Engine.
WITH_OCI = (*COLUMNS, "oci")
INTRODUCTION = """# On a host with cgroup v2 and AppArmor

Most hosts have both, and a development machine may have neither. `./dev vm` makes a virtual machine of Debian 13, with
the packages of its own archive, and looks from inside; this page is what it wrote the last time. The emulated machine is
many times slower than a real one: the times say nothing.

A row is something looked at, a column the AppArmor profile of the worker's container: `docker-default`, which the
Engine applies unless told otherwise, or [`pool-worker`](../seccomp/pool-worker.apparmor), which comes with the wheel (see
[how to load it](operations.md#on-hosts-with-apparmor)). In the column `oci` no Docker Engine runs: the daemon starts the
workers itself, with runc, under `pool-worker`.
"""
SECTIONS = {
    "": "## The pool\n\nThe wheel, its daemon and the worker image, used as on any host.",
    "probe": (
        "## What a worker proved of itself\n\nBefore its first lease each worker tries from inside a job what it must not "
        "be able to do; `pool-admin doctor` shows it. `skipped` is a probe of a part that is missing."
    ),
    "unit": (
        "## As a unit of systemd\n\nWith [`pool.service`](../config/pool.service) and, for the engine `oci`, "
        "[`pool-oci.service`](../config/pool-oci.service)."
    ),
    "step": (
        "## What a job's own namespaces take\n\nOne by one, in a container that is locked down as a worker's is. The row "
        "is what a pool's `isolation` rests on: where a step is refused, the worker says which part is missing."
    ),
    "denied": (
        "## What AppArmor denies by itself\n\nTried as root with every capability, without seccomp and without masked "
        "paths, in the host's pid namespace: nothing but AppArmor is in the way. A worker has all the other layers as "
        "well. The first column shows that the attempt succeeds where no profile confines it. `ok` in the last is what "
        "the zygote needs, or harmless."
    ),
}


class Report:
    def __init__(self):
        self.facts, self.checks, self.logs = {}, [], {}
        self.ended = None

    def hear(self, told):
        if "fact" in told:
            self.facts[told["fact"]] = told["value"]
        elif "check" in told:
            self.checks.append(told)
        elif "log" in told:
            self.logs[told["log"]] = told["text"]
        elif "end" in told:
            self.ended = told["end"]

    @property
    def failed(self):
        return [each for each in self.checks if not each["passed"]]

    @property
    def complete(self):
        return self.ended == "all steps were taken" and not self.failed

    def as_json(self):
        return json.dumps({"facts": self.facts, "checks": self.checks, "end": self.ended}, indent=1) + "\n"

    def as_page(self):
        parts = [INTRODUCTION, "## The machine\n", table(("", ""), self.facts.items())]
        for kind, heading in SECTIONS.items():
            columns = {"denied": ("unconfined", *COLUMNS), "step": COLUMNS, "unit": WITH_OCI[1:]}.get(kind, WITH_OCI)
            parts += ["", heading, "", table(("", *columns), self._rows(kind, columns))]
        parts += ["", USERNS, "", table(("a profile of", "`unshare(CLONE_NEWUSER)`"), self._alone("variants"))]
        parts += ["", HALF, "", table(("", "mounts denied"), self._alone("half"))]
        return "\n".join(parts) + "\n"

    def _rows(self, kind, columns):
        rows = {}
        for each in self.checks:
            prefix, colon, name = each["check"].partition(": ")
            if not (colon and prefix in SECTIONS):
                prefix, name = "", each["check"]
            if prefix == kind and each["column"] in columns:
                rows.setdefault(name, {})[each["column"]] = cell(each)
        return [(name, *(row.get(column, "") for column in columns)) for name, row in rows.items()]

    def _alone(self, column):
        """A table of one column of its own."""
        return [
            (each["check"].removeprefix("userns: "), cell(each)) for each in self.checks if each["column"] == column
        ]


USERNS = """## User namespaces and the words of a profile

AppArmor 4 has a rule for user namespaces, `userns`, which AppArmor 3 does not know: a profile with it cannot be loaded
there. Whether it is needed depends on the abi that the profile names. `pool-worker` names 3.0, for which it is not; the
`docker-default` of this Engine names none, so that here it denies user namespaces as well as mounts."""
HALF = """Where AppArmor is 3.0, or the Engine new enough to name abi 3.0, `docker-default` denies the mounts only. A pool under
such a profile:"""


def cell(check):
    seen = check["seen"].replace("|", "\\|").replace("\n", " ").strip()
    return seen if check["passed"] else f"**failed**: {seen}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
