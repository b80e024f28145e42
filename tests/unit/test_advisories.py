"""Known vulnerabilities by version: ranges, the forms that distributions give versions, and what they have mended."""

import re
from typing import get_args

import pytest
from packaging.version import Version

from pool.doctor import TITLES, Verdict, examine
from pool.doctor.advisories import ADVISORIES, BACKPORTED, Release, advise, open_advisories, release_of
from tests.unit.hosts import a_host


def ids(component: str, version: str, patched: frozenset[str] = frozenset()) -> set[str]:
    release = release_of(version)
    assert release is not None
    return {each.id for each in open_advisories(component, release, patched)}


@pytest.mark.parametrize(
    ("text", "upstream", "packaged"),
    [
        ("1.1.5+ds1-1+deb12u1", "1.1.5", True),
        ("1.1.5+ds1", "1.1.5", True),
        ("1.0.0~rc93+ds1-5+deb11u5", "1.0.0rc93", True),
        ("1.6.20~ds1-1+deb12u3", "1.6.20", True),
        ("1.1.12-0ubuntu3.1", "1.1.12", True),
        ("20.10.24+dfsg1", "20.10.24", True),
        ("1.3.3-1.fc42", "1.3.3", True),
        ("6.1.0-13-amd64", "6.1.0", True),
        ("v1.2.5-0-g59923ef", "1.2.5", False),
        ("v1.7.27", "1.7.27", False),
        ("1.4.0-rc.3", "1.4.0rc3", False),
        ("1.0.0-rc93", "1.0.0rc93", False),
        ("28.0.0-beta.1", "28.0.0b1", False),
        ("6.18.22", "6.18.22", False),
    ],
)
def test_a_version_is_read_in_the_form_that_it_is_told(text, upstream, packaged):
    assert release_of(text) == Release(Version(upstream), packaged=packaged)


@pytest.mark.parametrize("text", ["", "dev", "05044ec0a9a75232cad458027ca83437aae3f4da", "library-import"])
def test_what_is_no_version_is_unknown(text):
    assert release_of(text) is None
    assert advise("containerd", text or "?", patched=None).verdict == "unknown"


@pytest.mark.parametrize(
    ("component", "name", "affected", "others"),
    [
        ("runc", "CVE-2019-5736", "1.0.0-rc6", "1.0.0-rc7"),
        ("runc", "CVE-2024-21626", "1.1.11", "1.1.12"),
        ("runc", "CVE-2024-45310", "1.2.0-rc.2", "1.2.0-rc.3"),
        ("runc", "CVE-2025-31133", "1.2.7", "1.2.8"),
        ("runc", "CVE-2025-52881", "1.4.0-rc.2", "1.2.9 1.4.0-rc.3"),
        ("runc", "CVE-2025-52565", "1.3.2", "1.3.3"),
        ("runc", "CVE-2026-41579", "1.4.2", "1.3.6"),
        ("containerd", "CVE-2020-15257", "1.3.8 1.4.2", "1.3.9 1.4.3"),
        ("containerd", "CVE-2024-40635", "1.6.37 1.7.26", "1.6.38 1.7.27"),
        ("containerd", "CVE-2024-25621", "2.0.6", "2.0.7"),
        ("docker", "CVE-2024-41110", "23.0.14 27.1.0", "23.0.15 27.1.1"),
        ("docker", "CVE-2026-42306", "29.5.0", "29.5.1"),
        ("kernel", "CVE-2026-31431", "6.18.21", "6.18.22 6.12.5"),
    ],
)
def test_an_advisory_holds_for_the_versions_of_its_range(component, name, affected, others):
    versions = [*affected.split(), *others.split()]
    assert [each for each in versions if name in ids(component, each)] == affected.split()


def test_every_advisory_is_complete_and_told_once():
    assert len({each.id for each in ADVISORIES}) == len(ADVISORIES)
    for each in ADVISORIES:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}", each.id)
        assert f"advisories-{each.component}" in TITLES
        assert each.what
        bounds = [Version(bound) for pair in each.affected for bound in pair]
        assert bounds == sorted(bounds), each.id
        assert len(set(bounds)) == len(bounds), each.id


def test_what_the_changelog_of_the_package_names_counts_as_mended():
    assert "CVE-2024-21626" in ids("runc", "1.1.5+ds1-1+deb12u1")
    assert "CVE-2024-21626" not in ids("runc", "1.1.5+ds1-1+deb12u1", frozenset({"CVE-2024-21626"}))
    finding = advise("runc", "1.1.5+ds1-1+deb12u1", patched=frozenset({"CVE-2024-21626"}))
    assert "CVE-2024-21626" not in finding.seen
    assert "CVE-2025-31133" in finding.seen


def test_a_changelog_says_nothing_about_a_build_that_is_not_the_distributions():
    assert "CVE-2024-21626" in advise("runc", "v1.1.5-0-gf19387a6", patched=frozenset({"CVE-2024-21626"})).seen


def test_a_packaged_version_without_a_changelog_says_that_it_may_be_mended():
    assert BACKPORTED in advise("runc", "1.1.5+ds1-1+deb12u1", patched=None).advice
    assert BACKPORTED not in advise("runc", "1.1.5+ds1-1+deb12u1", patched=frozenset()).advice
    assert BACKPORTED not in advise("runc", "1.1.5", patched=None).advice


def test_what_needs_no_worker_is_a_problem_and_the_rest_a_warning():
    assert advise("runc", "1.2.0", patched=None).verdict == "warning"
    assert advise("containerd", "1.7.28", patched=None).verdict == "problem"
    assert advise("containerd", "1.7.28~ds1-2", patched=None).verdict == "warning"  # perhaps it is mended
    assert advise("containerd", "1.7.28~ds1-2", patched=frozenset()).verdict == "problem"
    assert advise("runc", "1.4.3", patched=None).verdict == "ok"


def test_each_component_of_the_host_is_looked_up():
    host = a_host(
        docker={"version": "20.10.24+dfsg1", "components": {"runc": "1.1.5", "containerd": ""}},
        kernel={"release": "6.18.5"},
        changelogs={"docker": frozenset({"CVE-2024-41110"})},
    )
    found = {each.id: each for each in examine(host) if each.id.startswith("advisories-")}
    assert "CVE-2026-31431" in found["advisories-kernel"].seen
    assert "CVE-2024-41110" not in found["advisories-docker"].seen
    assert "CVE-2026-42306" in found["advisories-docker"].seen
    assert found["advisories-containerd"].verdict == "unknown"
    assert "fixed in 1.2.8" in found["advisories-runc"].advice.lower()
    assert {each.verdict for each in found.values()} <= set(get_args(Verdict))
