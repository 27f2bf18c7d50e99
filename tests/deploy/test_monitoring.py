"""The dashboard and the alerts: they say what the server exports, and fire when they should."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from loraloop.monitor.metrics import COUNTS, LEVELS, LOOP, PrometheusMetrics
from loraloop.records import Session

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "loraloop.json"
RULES = PROMETHEUS / "alerts.yml"
GRAFANA = {"$window": "1d", "$__rate_interval": "1m", "$model": ".*", "$role": ".*"}
"""What Grafana puts in the place of its variables."""
SCRAPE = {"job", "instance"}
"""Labels that Prometheus adds."""


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)


def panels() -> list[dict]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every expression of the dashboard, as Prometheus gets it."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    for name, value in GRAFANA.items():
        found = [query.replace(name, value) for query in found]
    return found


def rules() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every series of a server that has done everything once, with its labels."""
    told = [(name, dict.fromkeys(labels, "x"), 1.0) for name, (_, labels) in LOOP.items()]
    metrics = PrometheusMetrics(lambda: dict.fromkeys([*COUNTS, *LEVELS], 1.0), lambda: told)
    metrics.began()
    metrics.ended("/v1/chat/completions", "ocr@7", 200, 0.2)
    metrics.served(
        Session(
            id="s", time="2026-11-20T10:00:00Z", asked="ocr@7", answered="ocr@7", role="validator", prompt="p",
            answer="a", status="ok", duration=0.2, first_token=0.05, prompt_tokens=3, completion_tokens=5,
        )
    )  # fmt: skip
    metrics.rated("ocr@7", 4, "explicit")
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_the_committed_dashboard_is_what_the_script_makes():
    """Running scripts/dashboard.py again changes nothing."""
    assert DASHBOARD.read_text() == runpy.run_path(str(ROOT / "scripts" / "dashboard.py"))["build"]()


@pytest.mark.parametrize("query", [*queries(), *rules()])
def test_every_query_asks_for_what_the_server_exports(query, exported):
    """Each metric in the dashboard and the alerts is exported under that name, with the labels that are asked for."""
    named = re.findall(r"(?:loraloop|process)_\w+(?:\{[^}]*\})?", query)
    assert named or "up{" in query
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.findall(r"\w+", group)}
    for each in named:
        name, _, matchers = each.partition("{")
        assert name in exported
        assert set(re.findall(r"(\w+)=~?", matchers)) <= exported[name] | SCRAPE
    known = SCRAPE.union(*(exported[each.partition("{")[0]] for each in named))
    assert grouped <= known


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path):
    """``promtool check rules`` parses each expression, with values in the place of Grafana's variables."""
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(recorded)} rules found" in done.stdout


def test_every_panel_can_be_read():
    """Each panel has a title, a description, a unit and a place of its own, and every variable is one of Grafana's."""
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in panels()]
    assert len(set(places)) == len(places)
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert "unit" in panel["fieldConfig"]["defaults"] or panel["type"] == "state-timeline"
    variables = {variable["name"] for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used == variables


def test_ratings_are_counted_from_zero():
    """A version that answers shows its ratings at zero, so that Prometheus sees the first one as an increase."""
    metrics = PrometheusMetrics()
    metrics.ended("/v1/completions", "ocr@7", 200, 0.1)
    assert b'loraloop_ratings_total{kind="explicit",model="ocr@7",stars="1"} 0.0' in metrics.text()
    assert b'loraloop_rating_stars_total{kind="explicit",model="ocr@7"} 0.0' in metrics.text()


def test_prometheus_accepts_its_configuration(tmp_path):
    """``promtool check config`` accepts prometheus.yml, its rules and, where there is one, its key."""
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    key, config = tmp_path / "key", tmp_path / "prometheus.yml"
    key.write_text("ll-secret")
    config.write_text(config.read_text().replace("/run/secrets/metrics_key", str(key)))
    done = promtool("check", "config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_not_before():
    """``promtool test rules`` plays series that each alert fires on, and their neighbours on which it is silent."""
    done = promtool("test", "rules", ROOT / "tests" / "deploy" / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_played():
    """No alert is without such a test."""
    played = (ROOT / "tests" / "deploy" / "alerts_test.yml").read_text()
    names = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(names) == 8
    assert all(name in played for name in names)
