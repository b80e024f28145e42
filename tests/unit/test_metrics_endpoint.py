"""The endpoint that Prometheus reads: of a real daemon, with the library's own parser."""

import contextlib
import json
import re
import socket
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pool.config import MetricsSettings
from pool.daemon.exporter import Exporter
from pool.errors import ConfigError
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.process import python

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
POOL = pool_of(1, limits={"wall_s": 60})


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return tmp_path_factory.mktemp("notes") / "alerts"


@pytest.fixture(scope="module")
def daemon(notes):
    note = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')", str(notes)]
    alerts = {"min_jobs": 2, "run_p95_s": 0.01, "command": note}
    with DaemonProcess({"default": POOL}, sections={"metrics": {"port": 0}, "alerts": alerts}) as running:
        with running.client(timeout=60) as client:
            for _ in range(2):
                assert client.run("import time; time.sleep(0.05); result = 1").ok
            assert client.run("1 / 0").outcome == "error"
        yield running


def scrape(daemon):
    """The samples by name and labels, and the families by name."""
    endpoint = daemon.status()["daemon"]["metrics"]
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = {(each.name, *sorted(each.labels.items())): each.value for it in families for each in it.samples}
    return samples, {each.name: each for each in families}


def test_what_jobs_have_done_is_counted(daemon):
    samples, _ = scrape(daemon)
    pool = ("pool", "default")
    assert samples["pool_jobs_total", ("outcome", "ok"), pool] == 2
    assert samples["pool_jobs_total", ("outcome", "error"), pool] == 1
    assert samples["pool_run_seconds_count", pool] == 3
    assert samples["pool_run_seconds_sum", pool] >= 0.1
    assert samples["pool_run_seconds_bucket", ("le", "0.025"), pool] <= 1
    assert samples["pool_worker_starts_total", pool] >= 1
    assert samples["pool_lockdown_failures_total", pool] == 0
    assert samples["pool_breaker_open", pool] == 0
    assert samples["process_resident_memory_bytes",] > 1 << 20


def test_every_metric_is_documented_and_has_only_labels_of_closed_sets(daemon):
    _, families = scrape(daemon)
    ours = {name: each for name, each in families.items() if not name.startswith("process_")}
    shown = {f"{name}_total" if each.type == "counter" else name for name, each in ours.items()}
    assert shown == set(re.findall(r"`(pool_\w+)`", PAGE))
    labels = {label for each in ours.values() for sample in each.samples for label in sample.labels}
    assert labels <= {"pool", "outcome", "found", "kind", "reason", "state", "alert", "le"}


def test_a_slow_pool_raises_an_alert_in_the_status_the_log_the_metrics_and_for_the_command(daemon, notes):
    daemon.until(lambda: notes.exists() and notes.read_text().endswith("\n"))
    told = json.loads(notes.read_text().splitlines()[0])
    (alert,) = [each for each in daemon.status()["alerts"] if each["id"] == "run_p95:default"]
    assert told == {"event": "start", **alert} | {"text": told["text"]}
    assert "p95 of the execution" in told["text"]
    assert "an alert has begun" in daemon.log.read_text()
    assert scrape(daemon)[0]["pool_alerts", ("alert", "run_p95")] == 1


def test_it_listens_on_loopback_unless_the_settings_say_otherwise(daemon):
    assert daemon.status()["daemon"]["metrics"].startswith("127.0.0.1:")


def test_many_connections_that_say_nothing_take_few_threads_and_keep_nobody_out(daemon):
    host, _, port = daemon.status()["daemon"]["metrics"].rpartition(":")
    process = psutil.Process(daemon.process.pid)
    threads, descriptors = process.num_threads(), process.num_fds()
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(socket.create_connection((host, int(port))))
        scrape(daemon)
        assert process.num_threads() <= threads + 10
        assert process.num_fds() <= descriptors + 10
    daemon.until(lambda: process.num_threads() <= threads)


# ---- settings ----


def test_without_a_port_there_is_no_endpoint():
    assert Exporter(MetricsSettings(), list, lambda _: None).endpoint is None


def test_a_port_that_is_taken_is_a_configuration_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: "):
            Exporter(MetricsSettings(port=port), list, lambda _: None)


def test_without_the_library_the_error_says_how_to_install_it():
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from pool.config import MetricsSettings\n"
        "from pool.daemon.exporter import Exporter\n"
        "Exporter(MetricsSettings(port=0), list, lambda _: None)"
    )
    done = python("-c", program)
    assert "pip install 'warm-container-pool[metrics]'" in done.stderr
