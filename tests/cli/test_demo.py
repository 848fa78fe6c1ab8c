"""The demo's pure parts: its shop, its judge, its picture."""

import json
from collections import Counter
from typing import Any
from xml.etree import ElementTree

import pytest

from payment_service.cli.demo_picture import BARS_MAX, COLOURS, bar_length, picture, tick_step
from payment_service.cli.demo_report import Check, as_json, broken_count, judge, latencies, show
from payment_service.cli.demo_stories import (
    EXPECTED,
    REST_FIRST,
    WEIGHTS,
    Kind,
    Story,
    cancelled,
    created,
    junk,
    refunds_of,
    stories,
)
from payment_service.cli.demo_traffic import Call, Ended
from payment_service.cli.demo_watch import Seen
from payment_service.codecs.order_events import OrderRules, decode_order_event
from payment_service.core.commands import Cancel, CreatePayment
from payment_service.core.errors import Malformed
from payment_service.core.ids import payment_id_of
from payment_service.core.terms import Status, Topic

RULES = OrderRules("MOCK", False, False)
TIME = "2026-11-24T10:00:00.000Z"


# -- the shop


def test_every_kind_of_shopper_comes_and_ends_somewhere() -> None:
    plan = stories("demo", 100, 1)
    assert len(plan) == 100
    assert {story.kind for story in plan} == set(Kind) == set(WEIGHTS) == set(EXPECTED)
    assert all(statuses <= set(Status) for statuses in EXPECTED.values())
    assert len({story.order_id for story in plan}) == len({story.user_id for story in plan}) == 100


def test_the_same_seed_is_the_same_shop() -> None:
    assert stories("demo", 50, 7) == stories("demo", 50, 7)
    assert stories("demo", 50, 7) != stories("demo", 50, 8)


@pytest.mark.parametrize("form", range(4))
def test_the_service_understands_every_envelope(form: int) -> None:
    for story in stories("demo", 40, 1):
        message = created(story, TIME, form)
        decoded = decode_order_event(message.value, message.headers, RULES, 0)
        assert decoded is not None
        command = decoded.command
        assert isinstance(command, CreatePayment)
        assert (command.order_id, command.amount_minor) == (story.order_id, story.amount_minor)
        message = cancelled(story, TIME, form)
        decoded = decode_order_event(message.value, message.headers, RULES, 0)
        assert decoded is not None
        assert isinstance(decoded.command, Cancel)


def test_junk_is_what_it_says_it_is() -> None:
    for message, broken in junk("demo", 300):
        if broken:
            with pytest.raises(Malformed):
                decode_order_event(message.value, message.headers, RULES, 0)
        else:
            assert decode_order_event(message.value, message.headers, RULES, 0) is None


def test_refunds_never_exceed_the_payment() -> None:
    for story in stories("demo", 500, 3):
        refunded = sum(refunds_of(story))
        match story.kind:
            case Kind.REFUND_FULL:
                assert refunded == story.amount_minor
            case Kind.REFUND_PARTS:
                assert 0 < refunded < story.amount_minor
            case _:
                assert refunded == 0


# -- the judge


def one_story(kind: Kind = Kind.PAYS, number: int = 0) -> Story:
    return Story(number, "demo", kind, 0.0, 1000, "USD")


def payment(story: Story, status: str, refunded: int = 0) -> dict[str, Any]:
    return {"id": payment_id_of(story.order_id), "status": status, "amounts": {"refunded": refunded}}


def seen(story: Story, sequence: int, status: str, *, event_id: str | None = None, payment_id: str = "") -> Seen:
    payment_id = payment_id or payment_id_of(story.order_id)
    event = {
        "id": event_id or f"evt_{payment_id}_{sequence}", "sequence": sequence,
        "data": {"paymentId": payment_id, "orderId": story.order_id, "status": status},
    }  # fmt: skip
    return Seen(float(sequence), "payment.created" if sequence == 1 else "payment.processed", event)


def failed(checks: list[Check]) -> list[str]:
    return [check.text for check in checks if not check.passed]


def test_a_good_run_passes() -> None:
    story = one_story()
    ended = [Ended(story, payment(story, "SUCCEEDED"), None)]
    events = {story.order_id: [seen(story, 2, "SUCCEEDED"), seen(story, 1, "PENDING"), seen(story, 1, "PENDING")]}
    checks = judge(ended, events, broken_count(ended))
    assert failed(checks) == []
    report = as_json(ended, events, [Call("process", 200, None, 0.01)], [0.1, 0.2], checks, "demo.svg")
    assert report["passed"] is True
    assert report["events"] == {"payment.created": 1, "payment.processed": 1}
    assert json.dumps(report)


@pytest.mark.parametrize(
    ("status", "events", "dead", "expected"),
    [
        ("FAILED", [(1, "PENDING", {}), (2, "FAILED", {})], 9, ["every shopper got what the story says"]),
        ("SUCCEEDED", [(1, "PENDING", {}), (3, "SUCCEEDED", {})], 9,
         ["sequences have no gaps, and no number means two events"]),
        ("SUCCEEDED", [(1, "PENDING", {}), (1, "PENDING", {"event_id": "evt_other"}), (2, "SUCCEEDED", {})], 9,
         ["sequences have no gaps, and no number means two events"]),
        ("SUCCEEDED", [(1, "PENDING", {}), (2, "SUCCEEDED", {"payment_id": "pay_other"})], 9,
         ["every order has exactly one payment"]),
        ("SUCCEEDED", [(1, "PENDING", {})], 9, ["the last event says what REST says"]),
        ("SUCCEEDED", [(1, "PENDING", {}), (2, "SUCCEEDED", {})], 0,
         ["every broken message is in the dead letters"]),
    ],
)  # fmt: skip
def test_each_fault_fails_its_check(
    status: str, events: list[tuple[int, str, dict[str, str]]], dead: int, expected: list[str]
) -> None:
    story = one_story()
    ended = [Ended(story, payment(story, status), None)]
    all_seen = {story.order_id: [seen(story, sequence, said, **more) for sequence, said, more in events]}
    assert failed(judge(ended, all_seen, dead)) == expected


def test_a_payment_that_cannot_be_read_and_a_wrong_refund_fail() -> None:
    story, other = one_story(Kind.REFUND_FULL), one_story(number=1)
    ended = [Ended(story, payment(story, "REFUNDED", 999), None), Ended(other, None, "process: 500")]
    events = {
        story.order_id: [seen(story, 1, "REFUNDED")],
        other.order_id: [seen(other, 1, "PENDING")],
    }
    assert failed(judge(ended, events, 9)) == [
        "every shopper got what the story says",
        "what was given back is what was asked for",
    ]


def test_a_status_that_is_never_announced_is_not_compared() -> None:
    story = one_story(Kind.PENDING)
    ended = [Ended(story, payment(story, "PROCESSING"), None)]
    assert failed(judge(ended, {story.order_id: [seen(story, 1, "PENDING")]}, 9)) == []


def test_the_report_prints_everything(capsys: pytest.CaptureFixture[str]) -> None:
    plan = stories("demo", 40, 1)
    ended = [Ended(story, payment(story, next(iter(EXPECTED[story.kind]))), None) for story in plan]
    checks = [Check("fine", ()), Check("broken", tuple(f"order {n}" for n in range(9)))]
    calls = [Call("process", 402, "CARD_DECLINED", 0.01)] * 3
    show(ended, {plan[0].order_id: [seen(plan[0], 1, "PENDING")]}, calls, [0.1], checks, "/tmp/demo.svg")
    printed = capsys.readouterr().out
    for text in ("CARD_DECLINED", "✓ fine", "✗ broken", "and 4 more", "Picture: /tmp/demo.svg", "payment.created"):
        assert text in printed


def test_latencies_are_percentiles_in_milliseconds() -> None:
    assert latencies([]) == (0.0, 0.0)
    assert latencies([0.5]) == (500.0, 500.0)
    p50, p99 = latencies([n / 1000 for n in range(1, 102)])
    assert (round(p50), round(p99)) == (51, 100)


# -- the picture


def drawn(moments: list[tuple[float, str]]) -> ElementTree.Element:
    return ElementTree.fromstring(picture(moments, "Events <&>", "100 orders"))


def texts(image: ElementTree.Element) -> list[str]:
    return [str(it.text) for it in image.iter() if it.tag.endswith("}text")]


def test_every_topic_has_a_colour() -> None:
    assert set(COLOURS) == {topic.value for topic in Topic}
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_bars_are_stacked_and_named() -> None:
    moments = [(0.1, "payment.created")] * 4 + [(0.2, "payment.processed")] * 2 + [(3.0, "payment.failed")]
    image = drawn(moments)
    bars = {str(title.text): rect for rect in image.iter() if rect.tag.endswith("}rect") for title in rect}
    assert set(bars) == {"payment.created: 4", "payment.processed: 2", "payment.failed: 1"}
    low, high = bars["payment.created: 4"], bars["payment.processed: 2"]
    assert float(low.get("height", 0)) == pytest.approx(2 * float(high.get("height", 0)), abs=0.2)
    assert float(high.get("y", 0)) + float(high.get("height", 0)) == pytest.approx(float(low.get("y", 0)), abs=0.2)
    said = texts(image)
    assert {"Events <&>", "100 orders", "created: 4", "processed: 2", "failed: 1", "events in one bar"} <= set(said)
    assert Counter(said)["0"] == 2


def test_an_empty_run_is_still_a_picture() -> None:
    assert "0" in texts(drawn([]))


@pytest.mark.parametrize("last_s", [0.0, 1.0, 14.9, 15.0, 29.0, 119.0, 3600.0, 100_000.0])
def test_there_are_never_too_many_bars(last_s: float) -> None:
    assert last_s / bar_length(last_s) <= BARS_MAX


@pytest.mark.parametrize(("highest", "step"), [(0, 1), (4, 1), (13, 5), (49, 10), (51, 20), (220, 50), (1001, 500)])
def test_ticks_are_round_numbers(highest: int, step: int) -> None:
    assert tick_step(highest, 5) == step


def test_rest_first_stories_send_no_order() -> None:
    assert set(Kind) > REST_FIRST
