"""The alerts and the dashboard of conf/monitoring: by promtool, and by a Prometheus that scrapes podwired."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.machine import until
from tests.system.programs import Program
from tests.system.test_agent_status import FAR, HEALTH_PORT, ONE, TWO, Agent, agent

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["agent"]  # a fixture

CHECKOUT = Path(__file__).parents[2]
RULES, DASHBOARD = CHECKOUT / "conf/monitoring/rules.yaml", CHECKOUT / "conf/monitoring/dashboard.json"
PORT = 9090
CONFIG = f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [/run/rules.yaml]
scrape_configs:
  - job_name: podwired
    static_configs: [{{targets: ["127.0.0.1:{HEALTH_PORT}"]}}]
"""
NAMESPACE = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}"


def program(name: str) -> str:
    """Returns the path of a program of Prometheus; skips the test where it is absent."""
    where = subprocess.run([CHECKOUT / "hack/peers", "--where"], capture_output=True, text=True, check=True)
    found = shutil.which(name) or shutil.which(name, path=where.stdout.strip())
    if found is None:
        pytest.skip(f"absent: {name} (hack/peers brings it)")
    return found


def ask(path: str) -> Any:
    """Inside: returns the data of Prometheus' answer; None where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError):
        return None
    finally:
        connection.close()
    assert answer["status"] == "success", answer
    return answer["data"]


def queries() -> Iterator[tuple[str, str]]:
    """Yields title and query of each panel, for a range of 30 seconds, of all instances."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*")


def test_promtool_accepts_the_alerts() -> None:
    done = subprocess.run([program("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboard_has_an_answer_and_no_alert_is_without_cause(agent: Agent) -> None:
    prometheus, machine = program("prometheus"), agent.machine
    agent.write(ONE, TWO, FAR)
    machine.run("install", "-D", "/dev/stdin", "/run/policies/shop.yaml", stdin=NAMESPACE)
    machine.run("install", "-D", "/dev/null", "/var/lib/cni/networks/cbr0/10.5.1.2")
    agent.start(f"--healthz-port={HEALTH_PORT}", "--network-policy", "--policy-files=/run/policies")
    until(lambda: agent.status()[0] == 0, "the node is ready")
    machine.run("install", "/dev/stdin", "/run/rules.yaml", stdin=RULES.read_text())
    machine.run("install", "/dev/stdin", "/run/prometheus.yml", stdin=CONFIG)
    flags = ("--config.file=/run/prometheus.yml", "--storage.tsdb.path=/run/tsdb")
    server = Program(machine, "prometheus", prometheus, *flags, f"--web.listen-address=127.0.0.1:{PORT}")
    silent = dict(queries())
    assert len(silent) > 10

    def has_answers() -> bool:
        for title, query in queries():
            data = machine.call(ask, f"/api/v1/query?{urlencode({'query': query})}")
            if data and data["result"]:
                silent.pop(title, None)
        return not silent

    try:
        until(has_answers, "every query has an answer")
    except Exception as error:
        raise AssertionError(f"without an answer: {silent}\n{server.log[-4000:]}") from error
    groups = machine.call(ask, "/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    firing = machine.call(ask, "/api/v1/alerts")["alerts"]
    assert firing == []
