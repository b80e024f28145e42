#!/usr/bin/env python3
"""Where the list of system calls comes from, and whether it is still so.

    corpus.py ──strace──▶ traced.json ──┐
                      additions.yaml ──┼──compare──▶ worker.json: what is allowed is traced or explained,
                        refused.yaml ──┘                          what was traced is allowed or explained

    derive.py --check      compare only; needs nothing but these files
    derive.py              trace again, write traced.json, compare; needs strace and root, and a Docker Engine for the
                           worker's own part of the corpus

Exit status: 0 all is explained, 1 something is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Lists:
    """The four files, as sets of names; `added` and `refused` map a name to its reason."""

    allowed: frozenset[str]
    traced: frozenset[str]
    added: dict[str, str]
    refused: dict[str, str]

    @classmethod
    def read(cls, directory: Path) -> Lists:
        traced = json.loads((directory / "traced.json").read_text(encoding="utf-8"))
        return cls(
            allowed=_answered(json.loads((directory / "worker.json").read_text(encoding="utf-8"))),
            traced=frozenset(name for names in traced["calls"].values() for name in names),
            added=_reasons(directory / "additions.yaml"),
            refused=_reasons(directory / "refused.yaml"),
        )

    def problems(self) -> list[str]:
        """What somebody has to explain, or to take out; a sentence each."""
        found = {
            "allowed, but neither traced nor in additions.yaml": self.allowed - self.traced - self.added.keys(),
            "traced and not allowed, and not in refused.yaml": self.traced - self.allowed - self.refused.keys(),
            "in additions.yaml, but not allowed": self.added.keys() - self.allowed,
            "in refused.yaml, but allowed": self.refused.keys() & self.allowed,
            "in refused.yaml, but nothing in the corpus asks for it": self.refused.keys() - self.traced,
            "without a reason": {name for name, why in (self.added | self.refused).items() if len(why) < 10},
        }
        return [f"{problem}: {', '.join(sorted(names))}" for problem, names in found.items() if names]


def _answered(profile: dict[str, list[dict[str, object]]]) -> frozenset[str]:
    """Names that are answered with anything but an error, whatever their arguments must be."""
    names: set[str] = set()
    for rule in profile["syscalls"]:
        if rule["action"] == "SCMP_ACT_ALLOW" or rule.get("errnoRet") == 0:
            names.update(str(name) for name in rule["names"])  # type: ignore[attr-defined]
    return frozenset(names)


def _reasons(path: Path) -> dict[str, str]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    reasons: dict[str, str] = {}
    for group in groups:
        for name in group["names"]:
            if name in reasons:
                raise ValueError(f"{path.name} names {name} twice; keep one reason")
            reasons[name] = " ".join(group["reason"].split())
    return reasons


def main() -> int:
    options = _parse()
    if not options.check:
        from tracing import trace  # type: ignore[import-not-found]

        document = trace(say, docker=not options.without_docker)
        (options.directory / "traced.json").write_text(_readable(document), encoding="utf-8")
    lists = Lists.read(options.directory)
    for problem in (problems := lists.problems()):
        say(f"derive: {problem}")
    counts = f"{len(lists.allowed)} allowed: {len(lists.allowed & lists.traced)} traced, {len(lists.added)} added"
    say(f"{counts}; {len(lists.refused)} traced and refused")
    return 1 if problems else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only, do not trace")
    parser.add_argument("--without-docker", action="store_true", help="leave out the workers in containers")
    parser.add_argument("--directory", type=Path, default=HERE, help="where the lists are")
    return parser.parse_args()


def _readable(document: dict[str, dict[str, object]]) -> str:
    """JSON with a line for each program, so that a difference can be read."""
    facts = json.dumps(document["made"])
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(calls)}" for name, calls in document["calls"].items())
    return f'{{\n  "made": {facts},\n  "calls": {{\n{lines}\n  }}\n}}\n'


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
