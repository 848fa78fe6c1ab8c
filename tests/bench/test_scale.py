"""docs/scale.md shows what the simulation says, and the simulation agrees with what can be computed by hand."""

import math
from pathlib import Path

import pytest
from bench import scale_simulation as simulation

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


@pytest.mark.long
@pytest.mark.parametrize("title", simulation.TABLES)
def test_the_document_shows_what_the_simulation_says(title: str) -> None:
    shown = DOCUMENT.read_text().splitlines()
    rows = [f"| {' | '.join(row)} |" for row in simulation.TABLES[title]()]
    assert rows
    assert [row for row in rows if row not in shown] == []


@pytest.mark.parametrize("head_room", [1.1, 1.5, 2.0, 4.0])
def test_a_steady_flow_is_caught_up_by_the_head_room_alone(head_room: float) -> None:
    it = simulation.flow(head_room, 1.0, 0.0, 3600.0)
    assert it.done_after_s == pytest.approx(3600 / (head_room - 1), rel=0.01)
    assert it.waiting_max_s == pytest.approx(3600, rel=0.01)


def test_what_is_too_small_never_catches_up() -> None:
    assert math.isinf(simulation.flow(0.99, 1.0, 0.0, 3600.0).done_after_s)
    assert simulation.flow(1.0, 3.0, -simulation.DAY_S / 2, 0.0, follow_s=simulation.DAY_S).waiting_max_s == 0.0


def test_the_days_shape_has_the_peak_it_was_asked_for() -> None:
    k = simulation.day_shape(3.0)
    hours = [math.exp(k * (math.cos(2 * math.pi * minute / 1440) - 1)) for minute in range(1440)]
    assert 1440 / sum(hours) == pytest.approx(3.0, rel=1e-3)


def test_one_bucket_makes_hardly_anybody_wait_and_many_do() -> None:
    alone, shared = simulation.bucket_waits(1, 0.8), simulation.bucket_waits(16, 0.8)
    assert alone[0] < 0.001
    assert shared[0] > 100 * alone[0]
    assert simulation.bucket_waits(16, 0.8) == shared


def test_a_slow_provider_is_bounded_by_the_slots() -> None:
    it = simulation.slow_provider(100.0, 20.0)
    assert (it.in_flight, it.per_s) == (1000.0, 50.0)
    assert it.waiting_max == 50.0 * simulation.SLOW_FOR_S
    assert simulation.slow_provider(10.0, 20.0).waiting_max == 0.0
