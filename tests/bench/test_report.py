"""What the bench makes of what it measured, without measuring anything."""

import asyncio
import math
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bench import history, report
from bench.beside import Beside, beside, cost_of
from bench.load import Timing, read_load, wrk
from bench.mixed import held_at_most, lag_buckets
from bench.picture import BAR, COLUMN, picture
from bench.processor import Spent

from payment_service.adapters.metrics import PrometheusMetrics

LETTER = 6.5
"""Width of one, on average."""
SVG = "{http://www.w3.org/2000/svg}"
RESULTS = {
    "orders: plain Faust /s": 500.0,
    "orders: limit /s": 20_000.0,
    "orders: ours, published and in the table /s": 8_000.0,
    "orders: own CPU us each": 100.0,
    "orders: kafka CPU us each": 50.0,
    "orders: postgres CPU us each": 25.0,
    "rest create + process: ours at 1 p50 ms": 3.5,
    "mixed: event loop held at most ms": 25.0,
}
RUN = report.Run(
    "2026-12-01 05:00", "abc1234", "x86_64, 2 cores", 0.3, 200.0, 5000, 2, {"RATE_LIMIT_MAX": "100000000"}, RESULTS, [],
    beside(RESULTS),
)  # fmt: skip

# --- the load


def test_what_the_scripts_print_is_read() -> None:
    text = (
        "  2046 requests in 503.72ms\nTIMED create 10 2000000 1500 9000 12000\nTIMED both 10 2000000 4000 9900 9990\n"
    )
    load = read_load(text + "REFUSED create 3\nUNANSWERED 4\nERRORS 2\n", client_s=0.001)
    assert load.timings["create"] == Timing(10, 5.0, 1.5, 9.0, 12.0)
    assert load.timings["both"].p50_ms == 4.0
    assert (load.failures, load.unanswered) == (5, 4)
    assert load.client_us == pytest.approx(100.0), "of 10 requests: both is not a kind of request"


def test_a_wrk_that_ended_without_a_word_gives_no_figures() -> None:
    assert read_load("unable to connect\n").timings == {}


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
async def test_the_script_processes_what_it_created_and_times_both(tmp_path: Path) -> None:
    created: list[str] = []
    processed: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        headers = {"X-Request-ID": request.headers["X-Request-ID"]}
        if request.path.endswith("/process"):
            processed.append(request.path.split("/")[-2])
            return web.json_response({}, headers=headers, status=402 if len(processed) == 1 else 200)
        created.append(f"pay_{len(created)}")
        return web.json_response({"data": {"id": created[-1]}}, headers=headers, status=201)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server:
        assert server.port is not None
        load = await asyncio.to_thread(wrk, "flow.lua", server.port, 1, 1, MIX="create process")
    assert load.failures == 1
    assert load.unanswered <= 1, "its one connection"
    assert processed[:5] == created[:5]
    # The last one may be under way when wrk ends.
    assert 0 <= len(processed) - 1 - load.timings["process"].count <= 1
    assert load.timings["both"].count == load.timings["process"].count
    assert load.timings["both"].p50_ms > load.timings["process"].p50_ms


# --- the event loop, the processor


def test_the_longest_hold_is_bounded_by_the_bucket_that_has_all_looks_of_the_time_between() -> None:
    metrics = PrometheusMetrics()
    for held_s in (0.0001, 3.0):  # before: not of this time
        metrics.observe("event_loop_lag_seconds", held_s)
    before = lag_buckets(metrics.text().decode())
    for held_s in (0.0001, 0.015, 0.004):
        metrics.observe("event_loop_lag_seconds", held_s)
    assert held_at_most(before, lag_buckets(metrics.text().decode())) == (3, 0.02)
    metrics.observe("event_loop_lag_seconds", 60.0)
    assert held_at_most(before, lag_buckets(metrics.text().decode())) == (4, math.inf)


def test_processor_time_of_a_server_elsewhere_is_not_told() -> None:
    spent = Spent(3.0, None, 1.5).each_us(Spent(1.0, None, 1.0), 1000)
    assert spent == {"own": pytest.approx(2000.0), "postgres": pytest.approx(500.0)}


# --- beside references


def test_what_was_not_measured_is_left_out() -> None:
    found = {one.title: one for one in beside(RESULTS)}
    assert found["orders drained to published and in the table"].references == {"plain Faust": 500.0, "limit": 20_000.0}
    assert not any(title.startswith("webhooks") for title in found)
    without = {name: value for name, value in RESULTS.items() if name != "orders: limit /s"}
    assert {one.title: one for one in beside(without)}["orders drained to published and in the table"].references == {
        "plain Faust": 500.0
    }


def test_a_cost_has_the_parts_that_were_measured() -> None:
    assert cost_of(RESULTS | {"rest create: own CPU us each": 300.0}) == {
        "an order": {"own": 100.0, "kafka": 50.0, "postgres": 25.0},
        "a create": {"own": 300.0},
    }


def test_the_limits_of_a_run_are_those_its_workers_have() -> None:
    limits = report.limits_of({"RATE_LIMIT_MAX": "7"})
    assert (limits["RATE_LIMIT_MAX"], limits["PROVIDER_CONCURRENCY"]) == ("7", "1000")


def test_bars_are_as_long_as_their_figures_and_nothing_leaves_the_picture() -> None:
    ours = Beside("creates <at 64>", "/s", 30_000.0, {"plain": 10_000.0, "limit": 120_000.0}, "a & b")
    largest = {"an order": {"own": 100_000.0, "kafka": 50_000.0, "postgres": 25_000.0}}
    svg = ElementTree.fromstring(picture([ours] * 7, largest, "x"))
    bars = [float(bar.attrib["width"]) for bar in svg.iter(f"{SVG}rect")][1:]  # the first is the background
    assert bars[:3] == [BAR / 4, pytest.approx(BAR / 12, abs=0.1), BAR]
    assert bars[-3:] == pytest.approx([BAR * share / 175 for share in (100, 50, 25)], abs=0.1)
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    for group in svg.iter(f"{SVG}g"):
        left, top = map(float, group.attrib["transform"].removeprefix("translate(").rstrip(")").split())
        for text in group.iter(f"{SVG}text"):
            if text.get("text-anchor") != "end":
                assert left + float(text.attrib["x"]) + LETTER * len("".join(text.itertext())) < left + COLUMN
        for bar in group.iter(f"{SVG}rect"):
            assert left + float(bar.attrib["x"]) + float(bar.attrib["width"]) < width
            assert top + float(bar.attrib["y"]) + float(bar.attrib["height"]) < height


# --- history


def test_a_kept_run_is_a_row_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "HISTORY.md"
    file.write_text("# Runs\n\nwhat they are\n")
    history.keep(RUN, file)
    history.keep(replace(RUN, commit="def5678"), file)
    lines = file.read_text().splitlines()
    assert lines[:3] == ["# Runs", "", "what they are"]
    header, rule, first, second = lines[4:]
    assert {line.count("|") for line in (header, rule, first, second)} == {len(history.COLUMNS) + 1}
    cells = dict(zip(history.COLUMNS, (cell.strip() for cell in first.strip("|").split("|")), strict=True))
    assert cells["commit"] == "abc1234"
    assert "| def5678 |" in second
    assert cells["size"] == "5,000 orders, 2 s each load"
    assert cells["orders /s"] == "8,000 (16.00 x plain Faust, 0.40 x limit)"
    assert cells["us an order"] == "100 + 50.0 + 25.0"
    assert cells["reads at 64 /s"] == "-"


def test_other_columns_begin_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "HISTORY.md"
    file.write_text("# Runs\n")
    history.keep(RUN, file)
    monkeypatch.setattr(history, "COLUMNS", (*history.COLUMNS[:-1], "another"))
    history.keep(RUN, file)
    assert file.read_text().count("\n| --- |") == 2


def test_the_kept_rows_stand_under_the_present_columns() -> None:
    assert "| " + " | ".join(history.COLUMNS) + " |" in history.FILE.read_text()
