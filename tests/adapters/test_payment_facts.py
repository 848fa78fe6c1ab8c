"""What is told to be compared: bounded whatever passes, nothing lost while the broker is away, nobody told twice."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from rigs.counted import CountedMetrics
from rigs.provider_rig import call_for
from rigs.settable_clock import SettableClock

from payment_service.adapters import payment_facts
from payment_service.adapters.guarded import CREATE
from payment_service.adapters.payment_facts import BEHIND_S_MAX, PAYMENTS_PER_S, PaymentFacts
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.codecs.facts import Told, decode_told, encode_told
from payment_service.core.commands import CreatePayment
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ids import payment_id_of, shard_of
from payment_service.core.ports import NOT_THERE, Answer, Loaded
from payment_service.core.reconciliation import our_fact
from payment_service.core.terms import Kind, Verdict

CIPHER = AesGcmCipher(b"k" * 32)
SHARDS = 4
YES = Answer(Verdict.APPROVED)


@dataclass
class Outside:
    """Broker, store and history in one; `changes`: (payment id, when), as the index has them."""

    sent: list[Told] = field(default_factory=list)
    placed: list[bytes | None] = field(default_factory=list)
    changes: list[tuple[str, float]] = field(default_factory=list)
    asked: list[float | None] = field(default_factory=list)
    error: Exception | None = None
    shards: int = SHARDS
    owned: set[int] = field(default_factory=lambda: set(range(SHARDS)))

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]],
        placed_by: bytes | None = None,
    ) -> None:  # fmt: skip
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.sent.append(decode_told(key, value or b"", CIPHER))
        self.placed.append(placed_by)

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        if payment_id == "pay_broken":
            raise Malformed("not a state of ours")
        return NOT_THERE

    async def last_of(self, ids: Sequence[str]) -> list[tuple[str, bytes]]:
        assert len(ids) <= PAYMENTS_PER_S
        return []

    async def changed(self, since_s: float | None, limit: int) -> list[tuple[str, float]]:
        self.asked.append(since_s)
        return [it for it in self.changes if since_s is None or it[1] > since_s][:limit]


@dataclass
class Rig:
    facts: PaymentFacts
    outside: Outside
    clock: SettableClock
    metrics: CountedMetrics

    def told(self) -> list[str]:
        return [it.payment_id for it in self.outside.sent]


@pytest.fixture
def rig() -> Rig:
    outside, clock, metrics = Outside(), SettableClock(), CountedMetrics()
    store: Any = outside
    facts = PaymentFacts(outside, store, outside, outside, CIPHER, clock, metrics)
    return Rig(facts, outside, clock, metrics)


def order(number: int) -> CreatePayment:
    name = f"order-{number}"
    return CreatePayment(payment_id_of(name), name, 0, "order", name, "ann", 1000, "USD", "MOCK")


async def test_what_was_heard_of_a_payment_goes_out_together_by_its_payment(rig: Rig) -> None:
    call = call_for(payment_id_of("order-1"))
    call.order_id = "order-1"  # type: ignore[misc]
    rig.facts.ordered(order(1))
    rig.facts.answered(CREATE, call, YES, 0.1)
    rig.facts.answered(Kind.CHARGE, call, YES, 0.1)
    rig.facts.answered(Kind.REFUND, call_for("pay_2", Kind.REFUND), Answer(Verdict.DECLINED), 0.1)
    await rig.facts.tick()
    [(payment_id, order_id, facts)] = rig.outside.sent
    assert (payment_id, order_id) == (payment_id_of("order-1"), "order-1")
    assert [fact["side"] for fact in facts] == ["ORDER", "PROVIDER"]
    assert rig.outside.placed == [payment_id.encode()], "in the partition of the payment's own events"
    await rig.facts.tick()
    assert len(rig.outside.sent) == 1


async def test_a_broker_that_is_away_loses_nothing_that_was_heard(rig: Rig) -> None:
    rig.facts.ordered(order(1))
    rig.outside.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await rig.facts.tick()
    rig.facts.ordered(order(1))
    rig.outside.error = None
    await rig.facts.tick()
    assert [len(it.facts) for it in rig.outside.sent] == [2]


async def test_a_worker_that_ends_while_it_tells_tells_once(rig: Rig) -> None:
    rig.facts.ordered(order(1))
    await asyncio.gather(rig.facts.tick(), rig.facts.last())
    assert len(rig.outside.sent) == 1


async def test_under_load_a_bounded_number_is_told_and_the_rest_is_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment_facts, "HEARD_MAX", 2 * PAYMENTS_PER_S)
    for number in range(1000):
        rig.facts.ordered(order(number))
    await rig.facts.tick()
    assert len(rig.outside.sent) == PAYMENTS_PER_S
    await rig.facts.last()
    assert len(rig.outside.sent) == 2 * PAYMENTS_PER_S
    assert rig.metrics.counts["reconciliation_left_out",] == 1000 - 2 * PAYMENTS_PER_S


async def test_each_change_is_read_once_by_who_publishes_for_it_at_its_rate(rig: Rig) -> None:
    ids = [payment_id_of(f"order-{number}") for number in range(3 * PAYMENTS_PER_S)]
    rig.outside.changes = [(it, 100.0 + number) for number, it in enumerate(ids)]
    rig.outside.owned -= {0}
    mine = [it for it in ids if shard_of(it, SHARDS) in rig.outside.owned]
    for _ in range(5):
        await rig.facts.tick()
    assert rig.told() == mine
    assert rig.outside.asked[-1] == rig.outside.changes[-1][1]
    assert rig.metrics.counts["reconciliation_compared",] == len(mine)


async def test_a_page_that_ends_within_a_moment_loses_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of the store has one time for all its calls."""
    monkeypatch.setattr(payment_facts, "CHANGED_MAX", 30)
    ids = [payment_id_of(f"order-{number}") for number in range(40)]
    rig.outside.changes = [(it, 100.0 if number < 20 else 101.0) for number, it in enumerate(ids)]
    for _ in range(4):
        await rig.facts.tick()
    assert set(rig.told()) == set(ids)


async def test_too_far_behind_it_begins_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_facts, "CHANGED_MAX", 2)
    rig.outside.changes = [(payment_id_of(f"order-{number}"), 100.0 + number) for number in range(10)]
    await rig.facts.tick()
    rig.clock.pass_s(BEHIND_S_MAX + 1)
    await rig.facts.tick()
    assert rig.outside.asked == [None, None]
    assert rig.metrics.counts["reconciliation_left_out",] == 1
    rig.outside.changes = []
    await rig.facts.tick()
    rig.clock.pass_s(BEHIND_S_MAX - 1)
    await rig.facts.tick()
    assert rig.metrics.counts["reconciliation_left_out",] == 1, "with nothing to do it is not behind"


async def test_what_is_open_is_read_again_and_alarms_are_gauges(rig: Rig) -> None:
    class Accounts:
        def to_look_at(self, limit: int) -> list[tuple[str, str]]:
            return [("pay_gone", "order-gone"), ("pay_broken", "order-broken")]

        def alarms(self) -> dict[str, int]:
            return {"NO_PAYMENT": 2}

    rig.facts.accounts = Accounts()
    await rig.facts.tick()
    assert rig.outside.sent == [Told("pay_gone", "order-gone", [our_fact(None, None, rig.clock.now_ms())])]
    assert rig.metrics.gauges["reconciliation_differences", "NO_PAYMENT"] == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"order-2", encode_told(Told("p", "order-1", []), CIPHER)), (None, b""), (b"order-1", b"{}"),
        (b"o", encode_told(Told("p", "o", [{"side": "NOBODY", "atMs": 1}]), CIPHER)),
        (b"o", encode_told(Told("p", "o", [{"side": "ORDER", "atMs": 1}]), CIPHER)),
        (b"o", encode_told(Told("p", "o", [{"side": "OURS", "atMs": "x", "payment": None}]), CIPHER)),
    ],
    ids=["another order's", "empty", "not sealed", "a side that nobody knows", "no amount", "no time"],
)  # fmt: skip
def test_what_none_of_our_workers_wrote_is_refused(key: bytes | None, value: bytes) -> None:
    with pytest.raises(Malformed):
        decode_told(key, value, CIPHER)
