"""The seccomp profile of a worker's container as a filter for the kernel, for use without an engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runner import seccomp, syscalls
from runner.seccomp import Only, Rule, Without

_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_EQUAL, _MASKED = "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"


def outer_filter(profile: str, machine: str = "") -> bytes:
    """The program for this machine. `profile`: the text of seccomp/worker.json.

    Raises ValueError for a rule that it cannot express; then nothing may be run.
    """
    numbers = syscalls.numbers(machine)
    found = json.loads(profile)
    if found["defaultAction"] != _ERRNO:
        raise ValueError(f"the profile's default action is {found['defaultAction']}, only {_ERRNO} is known here")
    actions: dict[int, Rule] = {}
    for name, rules in _by_name(found["syscalls"]).items():
        if name in numbers:
            actions[numbers[name]] = _action(name, rules)
    return seccomp.compile_filter(
        actions,
        arch=syscalls.audit_arch(machine),
        newest=syscalls.NEWEST,
        absent=(),
        denied=seccomp.fail(found["defaultErrnoRet"]),
    )


def _by_name(rules: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for rule in rules:
        for name in rule["names"]:
            found.setdefault(name, []).append(rule)
    return found


def _action(name: str, rules: list[Mapping[str, Any]]) -> Rule:
    """The action for a call, from all rules about it."""
    conditions = [rule.get("args", []) for rule in rules]
    if len(rules) == 1 and not conditions[0]:
        return seccomp.ALLOW if rules[0]["action"] == _ALLOW else seccomp.fail(rules[0]["errnoRet"])
    if all(rule["action"] == _ALLOW for rule in rules) and all(len(each) == 1 for each in conditions):
        tests = [each[0] for each in conditions]
        if len({test["index"] for test in tests}) == 1 and {test["op"] for test in tests} == {_EQUAL}:
            return Only(tests[0]["index"], tuple(test["value"] for test in tests))
        if len(tests) == 1 and tests[0]["op"] == _MASKED and not tests[0].get("valueTwo"):
            return Without(tests[0]["index"], tests[0]["value"])
    raise ValueError(f"the rules of the profile about {name} cannot be expressed as one test")
