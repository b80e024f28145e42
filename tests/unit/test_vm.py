"""`./dev vm`: the report of its checks. The machine itself is not tested here."""

from tests.vm.report import Report


def test_a_failed_check_is_marked_and_is_no_success():
    report = Report()
    for told in (
        {"fact": "kernel", "value": "6.12"},
        {"check": "no-op job", "column": "pool-worker", "passed": False, "seen": "a | b\nc"},
        {"check": "step: unshare", "column": "docker-default", "passed": True, "seen": "EACCES"},
        {"end": "all steps were taken"},
    ):
        report.hear(told)
    assert "| no-op job |  | **failed**: a \\| b c |" in report.as_page()
    assert "| unshare | EACCES |  |" in report.as_page()
    assert "| kernel | 6.12 |" in report.as_page()
    assert not report.complete
