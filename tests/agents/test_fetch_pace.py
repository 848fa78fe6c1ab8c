"""Fetch requests take turns, and a batch of every partition fits into one request."""

import pytest

from payment_service.agents import fetch_pace
from payment_service.agents.faust_app import PRODUCER_BATCH_BYTES_MAX, REQUEST_BYTES, stream_app
from payment_service.agents.fetch_pace import gap_s, pace_fetches


class Fetcher:
    """aiokafka's, with what it would ask for."""

    def __init__(self) -> None:
        self.wanted: list[tuple[int, str]] = []

    def _get_actions_per_node(self, assignment: object) -> tuple[object, ...]:
        return list(self.wanted), {"resets": 1}, 0.2, False, ["resume"]


class Consumer:
    def __init__(self) -> None:
        self._fetcher = Fetcher()


def test_a_broker_is_asked_once_in_each_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"s": 100.0}
    monkeypatch.setattr(fetch_pace, "monotonic", lambda: now["s"])
    consumer = Consumer()
    fetcher = consumer._fetcher
    pace_fetches(consumer, 0.21)
    fetcher.wanted = [(1, "a"), (2, "b")]
    assert fetcher._get_actions_per_node(None) == ([(1, "a"), (2, "b")], {"resets": 1}, 0.2, False, ["resume"])
    now["s"] += 0.05
    requests, _, wait_s, *_ = fetcher._get_actions_per_node(None)
    assert requests == [] and wait_s == pytest.approx(0.16), "it looks again when the turn comes, not later"
    now["s"] += 0.16
    fetcher.wanted = [(1, "c")]
    assert fetcher._get_actions_per_node(None)[0] == [(1, "c")]
    assert fetcher._get_actions_per_node(None)[0] == []


@pytest.mark.parametrize("rate", [1.0, 5.0, 50.0])
def test_the_gap_keeps_the_rate(rate: float) -> None:
    asked = [number * gap_s(rate) for number in range(1000)]
    most = max(sum(start <= it < start + 1 for it in asked) for start in asked)
    assert most <= rate


def test_no_limit_is_no_gap() -> None:
    assert gap_s(0) == 0


@pytest.mark.parametrize(("partitions", "at_once"), [(1, 1), (4, 4), (6, 6), (16, 16), (54, 54)])
def test_a_batch_of_each_partition_fits_into_a_request(partitions: int, at_once: int, tmp_path: object) -> None:
    app = stream_app(
        "x", "127.0.0.1:1", topic_prefix="", partitions=partitions, create_topics=False, instance_id=None,
        datadir=str(tmp_path), fetches_per_s=5,
    )  # fmt: skip
    assert app.conf.producer_max_batch_size * at_once <= REQUEST_BYTES
    assert app.conf.producer_max_batch_size <= PRODUCER_BATCH_BYTES_MAX
    assert app.fetch_gap_s == pytest.approx(0.25)
    app.discard()
