"""What every PaymentStore does, over memory and PostgreSQL alike."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace

import pytest
from rigs.changes import AT_MS, answer, change_of, charge, create
from rigs.stores import SHARDS, StoreRig, eventually

from payment_service.codecs.published import decode_published
from payment_service.core import commands as c
from payment_service.core.errors import Refused
from payment_service.core.ids import payment_id_of, shard_of
from payment_service.core.ports import NO_SECRETS, NOT_THERE, Committed, NextAction, PaymentFilter, Secrets
from payment_service.core.terms import Verdict


@pytest.fixture
def rig(store_rig: StoreRig) -> StoreRig:
    return store_rig


# --- commit and load -------------------------------------------------------------------------------------------


async def test_a_committed_change_is_what_is_loaded(rig: StoreRig) -> None:
    change = change_of(create("o1", "cmd1", description='9.99 "off" \\ {a,b}'))
    assert await rig.store.commit(change) is Committed.COMMITTED
    loaded = await rig.store.load(change.payment_id, "cmd1")
    assert loaded.payment == change.steps[-1].after
    assert (loaded.marked, loaded.secrets, len(loaded.head)) == (True, NO_SECRETS, 32)
    assert not (await rig.store.load(change.payment_id, "cmd2")).marked
    (event,) = await rig.store.events(change.payment_id)
    assert (event.version, event.sequence, event.at_ms, event.type) == (1, 1, AT_MS, "PaymentCreated")
    assert event.event == change.steps[0].event


async def test_what_is_not_there_loads_as_nothing(rig: StoreRig) -> None:
    assert await rig.store.load(payment_id_of("nobody"), "cmd") == NOT_THERE
    assert await rig.store.events(payment_id_of("nobody")) == []


async def test_the_committed_event_is_offered_with_its_value(rig: StoreRig) -> None:
    change = change_of(create("o1"))
    await rig.store.commit(change)
    ((row, direct),) = rig.offered
    assert direct
    assert (row.shard, row.payment_id) == (shard_of(change.payment_id, SHARDS), change.payment_id)
    assert (row.sequence, row.topic, row.at_ms) == (1, "payment.created", AT_MS)
    assert decode_published(row.value)["data"]["paymentId"] == change.payment_id


async def test_an_older_waiting_event_holds_back_the_next(rig: StoreRig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    await rig.store.commit(change_of(c.Cancel(created.payment_id, "cancel", AT_MS, "user:u1"), loaded))
    assert rig.told == [("payment.created", 1, True), ("payment.cancelled", 2, False)]


async def test_once_the_outbox_is_empty_the_next_event_may_go_out_at_once(rig: StoreRig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    rig.empty_outbox()
    loaded = await rig.store.load(created.payment_id)
    await rig.store.commit(change_of(c.Cancel(created.payment_id, "cancel", AT_MS, "user:u1"), loaded))
    assert rig.told[-1] == ("payment.cancelled", 2, True)


async def test_of_two_events_in_one_change_only_the_first_goes_out_at_once(rig: StoreRig) -> None:
    early = c.Cancel(
        payment_id_of("o1"), "early", AT_MS, "order", by_order=True, order_id="o1", user_id="u1", provider="MOCK"
    )
    await rig.store.commit(change_of(early))
    assert rig.offered == []  # nothing is known of it yet
    loaded = await rig.store.load(early.payment_id)
    assert await rig.store.commit(change_of(create("o1"), loaded)) is Committed.COMMITTED
    assert rig.told == [("payment.created", 1, True), ("payment.cancelled", 2, False)]


async def test_a_change_decided_on_an_old_version_does_not_happen(rig: StoreRig) -> None:
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


async def test_a_payment_is_created_once(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1", "first")))
    assert await rig.store.commit(change_of(create("o1", "second", amount=5))) is Committed.CONFLICT
    loaded = await rig.store.load(payment_id_of("o1"), "second")
    assert loaded.payment is not None
    assert (loaded.marked, loaded.payment.amount_minor) == (False, 1000)


async def test_of_two_commands_of_one_payment_one_happens(rig: StoreRig) -> None:
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


async def test_one_command_id_for_two_payments_happens_once_and_hurts_nobody_else(rig: StoreRig) -> None:
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


async def test_a_change_without_steps_only_marks(rig: StoreRig) -> None:
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    again = replace(change_of(create("o1", "again"), loaded), steps=())
    for _ in range(2):
        assert await rig.store.commit(again) is Committed.COMMITTED
    after = await rig.store.load(created.payment_id, "again")
    assert after == replace(loaded, marked=True)


async def test_a_change_without_a_command_id_leaves_no_mark(rig: StoreRig) -> None:
    created = replace(change_of(create("o1")), command_id="")
    assert await rig.store.commit(created) is Committed.COMMITTED
    loaded = await rig.store.load(created.payment_id)
    assert await rig.store.commit(replace(created, loaded=loaded, steps=())) is Committed.COMMITTED
    assert not (await rig.store.load(created.payment_id, "")).marked


async def test_a_caller_that_goes_away_cancels_nothing(rig: StoreRig) -> None:
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
async def test_text_that_cannot_be_stored_is_refused_alone(rig: StoreRig, bad: str, place: str) -> None:
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


async def test_a_lone_surrogate_in_a_document_is_refused(rig: StoreRig) -> None:
    with pytest.raises(Refused):
        await rig.store.submit(change_of(create("o1", description="\udc80")))


@pytest.mark.parametrize("bad", ["\x00", "\ud800"])
async def test_an_id_that_cannot_be_stored_is_not_there(rig: StoreRig, bad: str) -> None:
    assert await rig.store.load(f"pay_{bad}") == NOT_THERE
    assert await rig.store.events(f"pay_{bad}") == []
    with pytest.raises(Refused):
        await rig.store.load(payment_id_of("o1"), f"c{bad}")


@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', "a,b", "{x}", "NULL", "", " ", "\x1e", "%s", "'; --", "\n", "Zoë €", '","', "\\\\"]
)
async def test_any_other_text_comes_back_as_it_was(rig: StoreRig, text: str) -> None:
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


async def test_secrets_are_kept_replaced_and_cleared(rig: StoreRig) -> None:
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


# --- find ------------------------------------------------------------------------------------------------------


async def _shop(rig: StoreRig) -> None:
    rows = [("a", "u1", 1999, "USD"), ("b", "u1", 1999, "JPY"), ("c", "u2", 19990, "KWD"), ("d", "u1", 500, "USD")]
    for n, (order, user, amount, currency) in enumerate(rows):
        await rig.store.commit(
            change_of(create(order, user=user, amount=amount, currency=currency, at_ms=AT_MS + 1000 * min(n, 2)))
        )
    gone = c.Cancel(payment_id_of("e"), "e", AT_MS, "order", by_order=True, order_id="e", user_id="u1", provider="MOCK")
    await rig.store.commit(change_of(gone))


async def _orders(rig: StoreRig, query: PaymentFilter) -> str:
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
        (PaymentFilter(amount_min=1e305), ""),
        (PaymentFilter(amount_max=19.98), "d"),
        (PaymentFilter(created_from_ms=AT_MS + 1000), "bcd"),
        (PaymentFilter(created_to_ms=AT_MS + 1000), "ab"),
        (PaymentFilter(created_from_ms=AT_MS + 1000, created_to_ms=AT_MS + 1000), "b"),
    ],
)
async def test_find_filters(rig: StoreRig, query: PaymentFilter, orders: str) -> None:
    await _shop(rig)
    page = await rig.store.find(query)
    assert "".join(sorted(payment.order_id for payment in page.payments)) == orders
    assert (page.total, page.total_capped) == (len(orders), False)


async def test_find_sorts_and_breaks_ties_by_id(rig: StoreRig) -> None:
    await _shop(rig)
    c_then_d = "".join(sorted("cd", key=payment_id_of))
    assert await _orders(rig, PaymentFilter()) == c_then_d + "ba"
    assert await _orders(rig, PaymentFilter(descending=False)) == "ab" + c_then_d[::-1]
    a_then_c = "".join(sorted("ac", key=payment_id_of))
    assert await _orders(rig, PaymentFilter(sort_by="amount")) == "b" + a_then_c + "d"  # 1,999 yen, 19.99 twice, 5.00
    assert await _orders(rig, PaymentFilter(sort_by="amount", descending=False)) == "d" + a_then_c[::-1] + "b"
    assert await _orders(rig, PaymentFilter(sort_by="status")) == c_then_d + "ba"
    assert await _orders(rig, PaymentFilter(sort_by="status", descending=False)) == "ab" + c_then_d[::-1]


async def test_find_pages_add_up_to_everything(rig: StoreRig) -> None:
    await _shop(rig)
    everything = await _orders(rig, PaymentFilter(sort_by="status"))
    pages = [await _orders(rig, PaymentFilter(sort_by="status", limit=3, offset=offset)) for offset in (0, 3, 6)]
    assert "".join(pages) == everything
    assert (await rig.store.find(PaymentFilter(limit=3, offset=3))).total == 4


# --- many at once ----------------------------------------------------------------------------------------------


async def test_a_burst_is_committed_whole_and_read_back_whole(rig: StoreRig) -> None:
    changes = [change_of(create(f"o{n}", charge=n % 3 == 0)) for n in range(1200)]
    results: Sequence[Awaitable[Committed]] = [rig.store.submit(change) for change in changes]
    assert set(await asyncio.gather(*results)) == {Committed.COMMITTED}
    loads = await asyncio.gather(*[rig.store.load(x.payment_id, x.command_id) for x in changes])
    assert [loaded.payment for loaded in loads] == [change.steps[-1].after for change in changes]
    assert all(loaded.marked for loaded in loads)
    assert len({(row.payment_id, row.sequence) for row, _ in rig.offered}) == 1200
