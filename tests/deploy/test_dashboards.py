"""Dashboards and alert rules ask for numbers that a running worker shows, in words that Prometheus understands."""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rigs.worker import Installation
from servers.prometheus import PROMETHEUS, PROMTOOL, prometheus_scraping, promtool

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
WORDS_OF_PROMQL = {
    *("sum", "max", "min", "abs", "rate", "increase", "changes", "histogram_quantile", "absent", "vector", "count"),
    *("present_over_time", "by", "ignoring", "group_left", "or", "unless", "offset"),
}
GIVEN_BY_PROMETHEUS = {"instance", "job", "le"}
SCRAPED_S = 30.0

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None or PROMTOOL is None, reason="apt-get install prometheus")


@cache
def alerts() -> tuple[dict[str, Any], ...]:
    return tuple(rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"])


def panels(dashboard: Path) -> list[dict[str, Any]]:
    return list(json.loads(dashboard.read_text())["panels"])


def asked() -> Iterator[tuple[str, str]]:
    """(where it stands, what is asked)."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                yield f"{dashboard.name}: {panel['title']}", target["expr"]
        for note in json.loads(dashboard.read_text())["annotations"]["list"]:
            yield f"{dashboard.name}: {note['name']}", note["expr"]


def filled(expression: str) -> str:
    """As Grafana asks, with its variables filled in."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def parts(expression: str) -> tuple[set[str], set[str]]:
    """(metrics, labels) that it names."""
    text = re.sub(r'"[^"]*"', '""', filled(expression))
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", text))
    for names in re.findall(r"\b(?:by|ignoring)\s*\(([^)]*)\)", text):
        labels |= {name.strip() for name in names.split(",")}
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|ignoring)\s*\([^)]*\)|\boffset\s+\w+", " ", text)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b", text)) - WORDS_OF_PROMQL, labels


def test_what_is_asked_is_taken_apart() -> None:
    said = 'sum by (le, topic) (rate(a_bucket{b=~"c|d", e!="f g"}[5m])) / h > 0.5 or i unless i offset 10m'
    assert parts(said) == ({"a_bucket", "h", "i"}, {"le", "topic", "b", "e"})


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 30
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "action", "runbook"} == rule["annotations"].keys(), rule["alert"]


def test_commands_that_an_alert_names_exist() -> None:
    from payment_service.cli.main import program

    commands = program().commands
    for rule in alerts():
        for name, rest in re.findall(r"`payment-service ([a-z-]+)([^`]*)`", rule["annotations"]["action"]):
            assert name in commands, (rule["alert"], name)
            sub = getattr(commands[name], "commands", None)
            assert sub is None or rest.split()[0] in sub, (rule["alert"], rest)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_is_one_that_grafana_reads(dashboard: Path) -> None:
    board = json.loads(dashboard.read_text())
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 39
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 10
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}", "it must not name somebody's own Prometheus"


@pytest.mark.long
async def test_a_running_worker_shows_every_number_that_is_asked_for(
    tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        worker = await site.started()
        made = await worker.call("POST", "/api/v1/payments", {"orderId": "order-1", "amount": 5}, user="user-1")
        path = f"/api/v1/payments/{made.data['id']}/process"
        assert (await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user="user-1")).status == 200
        await worker.streaming()
        async with aiohttp.ClientSession() as session, session.get(worker.url + "/metrics") as answer:
            text = await answer.text()
        families = list(text_string_to_metric_families(text))
        shown = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
        for family in families:
            if family.type == "histogram":
                shown |= {f"{family.name}_{end}" for end in ("bucket", "sum", "count")}
        missing = {(where, name) for where, expr in asked() for name in parts(expr)[0] - shown}
        assert missing == set()
        labels = declared_labels()
        strange = {(where, name) for where, expr in asked() for name in parts(expr)[1] - labels - GIVEN_BY_PROMETHEUS}
        assert strange == set()
        assert "metrics_undeclared_total 0.0" in text
        if PROMETHEUS is not None:
            await answered_by_prometheus(worker.url.removeprefix("http://"), tmp_path)


def declared_labels() -> set[str]:
    from payment_service.adapters.metric_list import COUNTERS, GAUGES, HISTOGRAMS

    return {label for it in (*COUNTERS.values(), *GAUGES.values(), *HISTOGRAMS.values()) for label in it[1]}


async def answered_by_prometheus(target: str, folder: Path) -> None:
    """Each question is understood, and those about what this worker did have an answer."""
    async with prometheus_scraping(target, RULES, folder) as prometheus:
        deadline = asyncio.get_running_loop().time() + SCRAPED_S
        while True:
            status, data = await prometheus.ask("query", query="count_over_time(build_info[1m]) > 4")
            assert status == "success", data
            if data["result"]:  # type: ignore[index]
                break
            assert asyncio.get_running_loop().time() < deadline, "nothing was scraped"
            await asyncio.sleep(0.2)
        for where, expression in asked():
            status, data = await prometheus.ask("query", query=filled(expression))
            assert status == "success", (where, data)
        for name in ("max(payments_that_differ)", "sum(stream_running)", "max by (provider) (provider_breaker_open)"):
            assert (await prometheus.ask("query", query=name))[1]["result"], name  # type: ignore[index]
        status, data = await prometheus.ask("rules")
        rules = [rule for group in data["groups"] for rule in group["rules"]]  # type: ignore[index]
        assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alerts()}
        assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"} == {}


@needs_prometheus
async def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    await promtool("check", "rules", str(RULES))
    assert "SUCCESS" in await promtool("test", "rules", str(RULES.with_name("alerts_test.yaml")))
    told = [{"record": f"question:{n}", "expr": filled(expr)} for n, (_, expr) in enumerate(asked())]
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": told}]}))
    await promtool("check", "rules", str(tmp_path / "asked.yaml"))
