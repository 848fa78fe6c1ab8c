"""What every PaymentStore and CallQueue does, over memory and PostgreSQL alike."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from rigs.changes import AT_MS, answer, change_of, charge, create
from servers.postgres import execute

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.codecs.published import decode_published
from payment_service.core import commands as c
from payment_service.core.errors import Refused
from payment_service.core.ids import payment_id_of, shard_of
from payment_service.core.payment import status_of
from payment_service.core.ports import (
    NO_SECRETS,
    NOT_THERE,
    CallQueue,
    ClaimedCall,
    Committed,
    NextAction,
    OutboxRow,
    PaymentFilter,
    Secrets,
)
from payment_service.core.terms import Kind, Source, Status, Verdict

KEY = b"k" * 32
SHARDS = 16
WAIT_S = 5.0
T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks until the answer is something."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answered = await ask()
        if answered:
            return answered
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class Rig:
    store: MemoryPaymentStore | PostgresPaymentStore
    queue: CallQueue
    empty_outbox: Callable[[], None]
    offered: list[tuple[OutboxRow, bool]] = field(default_factory=list)

    def offer(self, rows: Sequence[tuple[OutboxRow, bool]]) -> None:
        self.offered += rows

    @property
    def told(self) -> list[tuple[str, int, bool]]:
        return [(row.topic, row.sequence, direct) for row, direct in self.offered]

    async def claim_until(self, owner: str, lease_s: float = 30.0) -> ClaimedCall:
        """Claims until something is due."""
        (call,) = await eventually(lambda: self.queue.claim(owner, 10, lease_s))
        return call


def _memory() -> Rig:
    store = MemoryPaymentStore(shards=SHARDS)
    rig = Rig(store, store, store.outbox.clear)
    store.on_outbox = rig.offer
    return rig


@pytest.fixture(params=["memory", "postgres"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "memory":
        yield _memory()
        return
    url = request.getfixturevalue("database_url")
    database, cipher = Database(url), AesGcmCipher(KEY)
    rows: list[tuple[OutboxRow, bool]] = []
    store = PostgresPaymentStore(database, cipher, chain_key(KEY), SHARDS, rows.extend)
    yield Rig(
        store,
        PostgresCallQueue(database, cipher),
        lambda: execute(url, "delete from payment_service.outbox") and None,
        rows,
    )
    await store.close()
    await database.close()


# --- commit and load -------------------------------------------------------------------------------------------


async def test_a_committed_change_is_what_is_loaded(rig: Rig) -> None:
    change = change_of(create("o1", "cmd1", description='9.99 "off" \\ {a,b}'))
    assert await rig.store.commit(change) is Committed.COMMITTED
    loaded = await rig.store.load(change.payment_id, "cmd1")
    assert loaded.payment == change.steps[-1].after
    assert (loaded.marked, loaded.secrets, len(loaded.head)) == (True, NO_SECRETS, 32)
    assert not (await rig.store.load(change.payment_id, "cmd2")).marked
    (event,) = await rig.store.events(change.payment_id)
    assert (event.version, event.sequence, event.at_ms, event.type) == (1, 1, AT_MS, "PaymentCreated")
    assert event.event == change.steps[0].event


async def test_what_is_not_there_loads_as_nothing(rig: Rig) -> None:
    assert await rig.store.load(payment_id_of("nobody"), "cmd") == NOT_THERE
    assert await rig.store.events(payment_id_of("nobody")) == []


async def test_the_committed_event_is_offered_with_its_value(rig: Rig) -> None:
    change = change_of(create("o1"))
    await rig.store.commit(change)
    ((row, direct),) = rig.offered
    assert direct
    assert (row.shard, row.payment_id) == (shard_of(change.payment_id, SHARDS), change.payment_id)
    assert (row.sequence, row.topic, row.at_ms) == (1, "payment.created", AT_MS)
    assert decode_published(row.value)["data"]["paymentId"] == change.payment_id


async def test_an_older_waiting_event_holds_back_the_next(rig: Rig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    await rig.store.commit(change_of(c.Cancel(created.payment_id, "cancel", AT_MS, "user:u1"), loaded))
    assert rig.told == [("payment.created", 1, True), ("payment.cancelled", 2, False)]


async def test_once_the_outbox_is_empty_the_next_event_may_go_out_at_once(rig: Rig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    rig.empty_outbox()
    loaded = await rig.store.load(created.payment_id)
    await rig.store.commit(change_of(c.Cancel(created.payment_id, "cancel", AT_MS, "user:u1"), loaded))
    assert rig.told[-1] == ("payment.cancelled", 2, True)


async def test_of_two_events_in_one_change_only_the_first_goes_out_at_once(rig: Rig) -> None:
    early = c.Cancel(
        payment_id_of("o1"), "early", AT_MS, "order", by_order=True, order_id="o1", user_id="u1", provider="MOCK"
    )
    await rig.store.commit(change_of(early))
    assert rig.offered == []  # nothing is known of it yet
    loaded = await rig.store.load(early.payment_id)
    assert await rig.store.commit(change_of(create("o1"), loaded)) is Committed.COMMITTED
    assert rig.told == [("payment.created", 1, True), ("payment.cancelled", 2, False)]


async def test_a_change_decided_on_an_old_version_does_not_happen(rig: Rig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    old = await rig.store.load(created.payment_id)
    await rig.store.commit(change_of(charge(created.payment_id), old))
    told = list(rig.offered)
    late = change_of(c.Cancel(created.payment_id, "late", AT_MS, "user:u1"), old)
    assert await rig.store.commit(late) is Committed.CONFLICT
    loaded = await rig.store.load(created.payment_id, "late")
    assert loaded.payment is not None
    assert (loaded.marked, loaded.payment.version, rig.offered) == (False, 2, told)


async def test_a_payment_is_created_once(rig: Rig) -> None:
    await rig.store.commit(change_of(create("o1", "first")))
    assert await rig.store.commit(change_of(create("o1", "second", amount=5))) is Committed.CONFLICT
    loaded = await rig.store.load(payment_id_of("o1"), "second")
    assert loaded.payment is not None
    assert (loaded.marked, loaded.payment.amount_minor) == (False, 1000)


async def test_of_two_commands_of_one_payment_one_happens(rig: Rig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    both = [
        rig.store.submit(change_of(c.Cancel(created.payment_id, f"cancel{n}", AT_MS, "user:u1"), loaded))
        for n in range(2)
    ]
    assert await asyncio.gather(*both) == [Committed.COMMITTED, Committed.CONFLICT]
    assert (await rig.store.load(created.payment_id, "cancel0")).marked
    assert not (await rig.store.load(created.payment_id, "cancel1")).marked


async def test_one_command_id_for_two_payments_happens_once_and_hurts_nobody_else(rig: Rig) -> None:
    changes = [change_of(create(f"o{n}")) for n in range(20)]
    changes[3] = change_of(create("twin-a", "same"))
    changes[11] = change_of(create("twin-b", "same"))
    results = await asyncio.gather(*[rig.store.submit(change) for change in changes])
    twins = [results.pop(11), results.pop(3)]
    assert set(results) == {Committed.COMMITTED}
    assert sorted(twins) == [Committed.COMMITTED, Committed.CONFLICT]
    there = [(await rig.store.load(payment_id_of(name))).payment is not None for name in ("twin-a", "twin-b")]
    assert sorted(there) == [False, True]
    assert len(rig.offered) == 19


async def test_a_change_without_steps_only_marks(rig: Rig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    again = replace(change_of(create("o1", "again"), loaded), steps=())
    for _ in range(2):
        assert await rig.store.commit(again) is Committed.COMMITTED
    after = await rig.store.load(created.payment_id, "again")
    assert after == replace(loaded, marked=True)


async def test_a_change_without_a_command_id_leaves_no_mark(rig: Rig) -> None:
    created = replace(change_of(create("o1")), command_id="")
    assert await rig.store.commit(created) is Committed.COMMITTED
    loaded = await rig.store.load(created.payment_id)
    assert await rig.store.commit(replace(created, loaded=loaded, steps=())) is Committed.COMMITTED
    assert not (await rig.store.load(created.payment_id, "")).marked


async def test_a_caller_that_goes_away_cancels_nothing(rig: Rig) -> None:
    change = change_of(create("o1"))
    future = rig.store.submit(change)
    future.cancel()

    async def there() -> bool:
        return (await rig.store.load(change.payment_id)).payment is not None

    await eventually(there)
    assert rig.told == [("payment.created", 1, True)]


# --- what cannot be stored, and what can -----------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["\x00", "\ud800"])
@pytest.mark.parametrize("place", ["order", "user", "command"])
async def test_text_that_cannot_be_stored_is_refused_alone(rig: Rig, bad: str, place: str) -> None:
    command = create("bad")
    broken = {
        "order": replace(command, order_id=f"o{bad}"),
        "user": replace(command, user_id=f"u{bad}"),
        "command": replace(command, command_id=f"c{bad}"),
    }[place]
    good = [rig.store.submit(change_of(create(f"o{n}"))) for n in range(3)]
    with pytest.raises(Refused) as refused:
        await rig.store.submit(change_of(broken))
    assert refused.value.code == "VALIDATION_ERROR"
    assert set(await asyncio.gather(*good)) == {Committed.COMMITTED}


async def test_a_lone_surrogate_in_a_document_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused):
        await rig.store.submit(change_of(create("o1", description="\udc80")))


@pytest.mark.parametrize("bad", ["\x00", "\ud800"])
async def test_an_id_that_cannot_be_stored_is_not_there(rig: Rig, bad: str) -> None:
    assert await rig.store.load(f"pay_{bad}") == NOT_THERE
    assert await rig.store.events(f"pay_{bad}") == []
    with pytest.raises(Refused):
        await rig.store.load(payment_id_of("o1"), f"c{bad}")


@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', "a,b", "{x}", "NULL", "", " ", "\x1e", "%s", "'; --", "\n", "Zoë €", '","', "\\\\"]
)
async def test_any_other_text_comes_back_as_it_was(rig: Rig, text: str) -> None:
    changes = [
        change_of(create(f"{text}{n}", f"{text}:{n}", user=text, description=text, charge=True)) for n in range(2)
    ]
    assert set(await asyncio.gather(*[rig.store.submit(x) for x in changes])) == {Committed.COMMITTED}
    for n, change in enumerate(changes):
        loaded = await rig.store.load(change.payment_id, f"{text}:{n}")
        assert (loaded.payment, loaded.marked) == (change.steps[-1].after, True)
    page = await rig.store.find(PaymentFilter(user_id=text))
    assert page.total == 2


# --- secrets ---------------------------------------------------------------------------------------------------


async def test_secrets_are_kept_replaced_and_cleared(rig: Rig) -> None:
    token = Secrets(method_token="tok_once")
    created = change_of(create("o1"), secrets=token)
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    assert loaded.secrets == token
    await rig.store.commit(change_of(charge(created.payment_id), loaded))
    loaded = await rig.store.load(created.payment_id)
    assert loaded.secrets == token  # None: as they were
    action = Secrets(next_action=NextAction("redirect", url="https://bank.example/3ds"))
    waiting = c.RequireAction(created.payment_id, "act", AT_MS, 1, "redirect", AT_MS + 9)
    await rig.store.commit(change_of(waiting, loaded, secrets=action))
    loaded = await rig.store.load(created.payment_id)
    assert loaded.secrets == action
    done = change_of(answer(created.payment_id, Verdict.APPROVED), loaded, secrets=NO_SECRETS)
    await rig.store.commit(done)
    assert (await rig.store.load(created.payment_id)).secrets == NO_SECRETS


# --- calls -----------------------------------------------------------------------------------------------------


async def _charged(rig: Rig, *, lease_s: float = 30.0) -> str:
    """A payment whose charge this worker has committed for itself."""
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    assert await rig.store.commit(change_of(charge(created.payment_id), loaded, lease_s=lease_s)) == "COMMITTED"
    return created.payment_id


async def test_a_scheduled_call_is_claimed_once_and_as_it_was(rig: Rig) -> None:
    change = change_of(create("o1", charge=True))
    await rig.store.commit(change)
    claimed = await rig.claim_until("w1")
    assert (claimed.call, claimed.tries) == (change.intents[0].call, 0)
    assert claimed.call.method_token == "tok_visa"
    assert await rig.queue.claim("w2", 10, 30.0) == []
    assert await rig.queue.renew(claimed.call.key, "w1", 30.0)
    assert not await rig.queue.renew(claimed.call.key, "w2", 30.0)


async def test_a_claim_comes_back_when_its_lease_ends(rig: Rig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    first = await rig.claim_until("w1", lease_s=0.05)
    again = await rig.claim_until("w2")
    assert (again.call, again.tries) == (first.call, 1)
    assert not await rig.queue.renew(first.call.key, "w1", 30.0)


async def test_a_claim_limit_is_kept(rig: Rig) -> None:
    for n in range(3):
        await rig.store.commit(change_of(create(f"o{n}", charge=True)))
    assert len(await rig.queue.claim("w1", 2, 30.0)) == 2
    assert len(await rig.queue.claim("w1", 2, 30.0)) == 1


async def test_a_call_that_was_not_sent_counts_as_never_sent(rig: Rig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    first = await rig.claim_until("w1")
    await rig.queue.reschedule(first.call.key, "w2", 0.0, sent=False)  # not its owner: nothing happens
    assert await rig.queue.claim("w2", 10, 30.0) == []
    await rig.queue.reschedule(first.call.key, "w1", 0.0, sent=False)
    second = await rig.claim_until("w2")
    assert second.tries == 0
    await rig.queue.reschedule(first.call.key, "w2", 0.0, sent=True)
    assert (await rig.claim_until("w3")).tries == 1


async def test_not_sent_this_time_does_not_hide_that_somebody_else_may_have_sent_it(rig: Rig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    lost = await rig.claim_until("w1", lease_s=0.01)
    await rig.claim_until("w2")
    await rig.queue.reschedule(lost.call.key, "w2", 0.0, sent=False)
    assert (await rig.claim_until("w3")).tries == 1


async def test_a_call_whose_worker_died_may_have_been_sent(rig: Rig) -> None:
    await _charged(rig, lease_s=0.2)
    assert await rig.queue.claim("w2", 10, 30.0) == []
    claimed = await rig.claim_until("w2")
    assert claimed.tries == 1  # never 0: "certainly never sent" would send it a second time


async def test_a_settled_call_is_not_claimed(rig: Rig) -> None:
    payment_id = await _charged(rig, lease_s=0.0)
    loaded = await rig.store.load(payment_id)
    await rig.store.commit(change_of(answer(payment_id, Verdict.DECLINED), loaded))
    assert await rig.queue.claim("w2", 10, 30.0) == []


async def test_an_unknown_outcome_has_no_owner_and_is_looked_at_later(rig: Rig) -> None:
    payment_id = await _charged(rig)
    loaded = await rig.store.load(payment_id)
    unknown = change_of(answer(payment_id, Verdict.UNKNOWN), loaded)
    await rig.store.commit(unknown)
    assert await rig.queue.claim("w2", 10, 30.0) == []
    key = f"{payment_id}:charge:1"
    assert not await rig.queue.renew(key, "worker-1", 30.0)
    assert status_of(unknown.steps[-1].after) is Status.UNKNOWN


async def test_a_refund_has_a_call_and_one_made_beside_us_has_none(rig: Rig) -> None:
    payment_id = await _charged(rig)
    loaded = await rig.store.load(payment_id)
    await rig.store.commit(change_of(answer(payment_id, Verdict.APPROVED), loaded))
    loaded = await rig.store.load(payment_id)
    beside = c.RecordExternalRefund(payment_id, "beside", AT_MS, "re_x", 100, Verdict.PENDING, Source.WEBHOOK)
    await rig.store.commit(change_of(beside, loaded))
    loaded = await rig.store.load(payment_id)
    ours = c.RequestRefund(payment_id, "refund", AT_MS, "user:u1", None, 300, 'too "big"')
    assert await rig.store.commit(change_of(ours, loaded, lease_s=0.0)) is Committed.COMMITTED
    claimed = await rig.claim_until("w2")
    assert (claimed.call.kind, claimed.call.number, claimed.call.amount_minor) == (Kind.REFUND, 2, 300)
    loaded = await rig.store.load(payment_id)
    assert loaded.payment is not None
    assert [r.reason for r in loaded.payment.refunds] == [None, 'too "big"']


# --- find ------------------------------------------------------------------------------------------------------


async def _shop(rig: Rig) -> None:
    rows = [("a", "u1", 1999, "USD"), ("b", "u1", 1999, "JPY"), ("c", "u2", 19990, "KWD"), ("d", "u1", 500, "USD")]
    for n, (order, user, amount, currency) in enumerate(rows):
        await rig.store.commit(
            change_of(create(order, user=user, amount=amount, currency=currency, at_ms=AT_MS + 1000 * min(n, 2)))
        )
    gone = c.Cancel(payment_id_of("e"), "e", AT_MS, "order", by_order=True, order_id="e", user_id="u1", provider="MOCK")
    await rig.store.commit(change_of(gone))


async def _orders(rig: Rig, query: PaymentFilter) -> str:
    page = await rig.store.find(query)
    return "".join(payment.order_id for payment in page.payments)


@pytest.mark.parametrize(
    ("query", "orders"),
    [
        (PaymentFilter(user_id="u2"), "c"),
        (PaymentFilter(user_id="nobody"), ""),
        (PaymentFilter(provider="STRIPE"), ""),
        (PaymentFilter(provider="MOCK", status="PENDING"), "abcd"),
        (PaymentFilter(amount_min=19.99, amount_max=19.99), "ac"),
        (PaymentFilter(amount_min=20), "b"),
        (PaymentFilter(amount_max=19.98), "d"),
        (PaymentFilter(created_from_ms=AT_MS + 1000), "bcd"),
        (PaymentFilter(created_to_ms=AT_MS + 1000), "ab"),
        (PaymentFilter(created_from_ms=AT_MS + 1000, created_to_ms=AT_MS + 1000), "b"),
    ],
)
async def test_find_filters(rig: Rig, query: PaymentFilter, orders: str) -> None:
    await _shop(rig)
    page = await rig.store.find(query)
    assert "".join(sorted(payment.order_id for payment in page.payments)) == orders
    assert (page.total, page.total_capped) == (len(orders), False)


async def test_find_sorts_and_breaks_ties_by_id(rig: Rig) -> None:
    await _shop(rig)
    c_then_d = "".join(sorted("cd", key=payment_id_of))
    assert await _orders(rig, PaymentFilter()) == c_then_d + "ba"
    assert await _orders(rig, PaymentFilter(descending=False)) == "ab" + c_then_d[::-1]
    a_then_b = "".join(sorted("ab", key=payment_id_of))
    assert await _orders(rig, PaymentFilter(sort_by="amount")) == "c" + a_then_b + "d"
    by_id = "".join(sorted("abcd", key=payment_id_of))
    assert await _orders(rig, PaymentFilter(sort_by="status", descending=False)) == by_id[::-1]


async def test_find_pages_add_up_to_everything(rig: Rig) -> None:
    await _shop(rig)
    everything = await _orders(rig, PaymentFilter(sort_by="status"))
    pages = [await _orders(rig, PaymentFilter(sort_by="status", limit=3, offset=offset)) for offset in (0, 3, 6)]
    assert "".join(pages) == everything
    assert (await rig.store.find(PaymentFilter(limit=3, offset=3))).total == 4


# --- many at once ----------------------------------------------------------------------------------------------


async def test_a_burst_is_committed_whole_and_read_back_whole(rig: Rig) -> None:
    changes = [change_of(create(f"o{n}", charge=n % 3 == 0)) for n in range(1200)]
    results: Sequence[Awaitable[Committed]] = [rig.store.submit(change) for change in changes]
    assert set(await asyncio.gather(*results)) == {Committed.COMMITTED}
    loads = await asyncio.gather(*[rig.store.load(x.payment_id, x.command_id) for x in changes])
    assert [loaded.payment for loaded in loads] == [change.steps[-1].after for change in changes]
    assert all(loaded.marked for loaded in loads)
    assert len({(row.payment_id, row.sequence) for row, _ in rig.offered}) == 1200
