"""What every store does with Idempotency-Keys, over memory and PostgreSQL alike."""

import asyncio
from dataclasses import replace

import pytest
from rigs.changes import change_of, charge, create
from rigs.stores import StoreRig

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.postgres.idempotency import PostgresKeys
from payment_service.core import commands as c
from payment_service.core.idempotency import CREATED, NOTHING, REFUSED, Bound, KeptAnswers, RequestKey, request_key
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import NOT_THERE, Change, Committed, Loaded

PAYMENT = payment_id_of("o1")


def a_key(name: str = "k1", body: bytes = b"{}") -> RequestKey:
    return request_key("user:u1", "POST", "/api/v1/payments", name, body)


def keyed(command: c.Command, loaded: Loaded = NOT_THERE, *, key: RequestKey, subject: str, answered: bool) -> Change:
    change = change_of(replace(command, command_id=key.command_id), loaded)
    version = change.steps[-1].version if change.steps else 0
    return replace(change, bound=Bound(key, subject, version, answered))


@pytest.fixture
def rig(store_rig: StoreRig) -> StoreRig:
    return store_rig


@pytest.fixture
def keys(rig: StoreRig) -> KeptAnswers:
    if isinstance(rig.store, MemoryPaymentStore):
        return rig.store.keys
    return PostgresKeys(rig.store._database, rig.store._cipher)


async def bound_in(rig: StoreRig, key: RequestKey, payment_id: str = PAYMENT) -> Bound | None:
    return (await rig.store.load(payment_id, key.command_id)).bound


async def test_a_key_is_bound_in_the_commit_of_what_it_started(rig: StoreRig) -> None:
    key = a_key()
    assert await rig.store.commit(keyed(create("o1"), key=key, subject=CREATED, answered=True)) is Committed.COMMITTED
    loaded = await rig.store.load(PAYMENT, key.command_id)
    assert loaded.bound is not None and 0 <= loaded.bound.age_s < 60
    assert replace(loaded.bound, age_s=0.0) == Bound(key, CREATED, 1, answered=True)
    assert not loaded.marked and loaded.payment is not None
    assert await bound_in(rig, a_key("k2")) is None


async def test_a_change_that_did_not_happen_binds_nothing(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1")))
    key = a_key()
    late = keyed(create("o1"), key=key, subject=CREATED, answered=True)
    assert await rig.store.commit(late) is Committed.CONFLICT
    assert await bound_in(rig, key) is None


async def test_one_key_for_two_payments_happens_once_and_hurts_nobody_else(rig: StoreRig) -> None:
    key = a_key()
    changes = [change_of(create(f"n{n}")) for n in range(20)]
    for place, order in ((3, "twin-a"), (11, "twin-b")):
        changes[place] = keyed(create(order), key=key, subject=CREATED, answered=True)
    results = await asyncio.gather(*[rig.store.submit(change) for change in changes])
    assert sorted(results[place] for place in (3, 11)) == [Committed.COMMITTED, Committed.CONFLICT]
    assert results.count(Committed.COMMITTED) == 19
    loser = changes[3] if results[3] is Committed.CONFLICT else changes[11]
    loaded = await rig.store.load(loser.payment_id, key.command_id)
    assert loaded.payment is None and loaded.bound is not None


async def test_of_two_commands_with_one_key_one_happens(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1")))
    loaded = await rig.store.load(PAYMENT)
    key = a_key()
    both = [keyed(charge(PAYMENT), loaded, key=key, subject="attempt:1", answered=False) for _ in range(2)]
    results = await asyncio.gather(*[rig.store.submit(change) for change in both])
    assert results == [Committed.COMMITTED, Committed.CONFLICT]
    later = await rig.store.load(PAYMENT)
    again = keyed(c.Cancel(PAYMENT, "", 1, "user:u1"), later, key=key, subject=NOTHING, answered=True)
    assert await rig.store.commit(again) is Committed.CONFLICT  # another command, a newer version, the same key
    bound = await bound_in(rig, key)
    assert bound is not None and (bound.subject, bound.answered) == ("attempt:1", False)


async def test_what_starts_nothing_takes_no_key_away(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1")))
    loaded, key, other = await rig.store.load(PAYMENT), a_key(), a_key("k2")
    idle = Change(PAYMENT, key.command_id, loaded, (), bound=Bound(key, NOTHING, 1, answered=True))
    assert await rig.store.commit(idle) is Committed.COMMITTED
    assert await rig.store.commit(replace(idle, bound=Bound(key, "attempt:1", 1, True))) is Committed.COMMITTED
    bound = await bound_in(rig, key)
    assert bound is not None and bound.subject == NOTHING
    assert await bound_in(rig, other) is None


async def test_a_freed_key_is_bound_again_once(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1")))
    key, loaded = a_key(), await rig.store.load(PAYMENT)
    await rig.store.commit(keyed(charge(PAYMENT), loaded, key=key, subject="attempt:1", answered=False))
    loaded = await rig.store.load(PAYMENT, key.command_id)
    cancel = c.Cancel(PAYMENT, "", 1, "user:u1")
    both = [keyed(cancel, loaded, key=key, subject=f"attempt:{n}", answered=False) for n in (2, 3)]
    results = await asyncio.gather(*[rig.store.submit(change) for change in both])
    assert results == [Committed.COMMITTED, Committed.CONFLICT]
    bound = await bound_in(rig, key)
    assert bound is not None and (bound.subject, bound.answered) == ("attempt:2", False)
    # Bound by somebody else since it was looked at: what starts nothing leaves it so.
    late = Change(PAYMENT, key.command_id, loaded, (), bound=Bound(key, NOTHING, 9, answered=True))
    await rig.store.commit(late)
    bound = await bound_in(rig, key)
    assert bound is not None and bound.subject == "attempt:2"
    newest = await rig.store.load(PAYMENT, key.command_id)
    await rig.store.commit(replace(late, loaded=newest))
    bound = await bound_in(rig, key)
    assert bound is not None and (bound.subject, bound.answered) == (NOTHING, True)


async def test_the_first_answer_stays(rig: StoreRig, keys: KeptAnswers) -> None:
    key = a_key()
    await rig.store.commit(keyed(create("o1"), key=key, subject="attempt:1", answered=False))
    bound = await bound_in(rig, key)
    assert bound is not None
    assert await keys.keep(bound, None) is None
    found = await bound_in(rig, key)
    assert found is not None and (found.answered, found.answer) == (True, None)
    assert await keys.keep(replace(bound, subject="attempt:2"), b"about something else") is None
    firsts = await asyncio.gather(*[keys.keep(bound, b"200 \n{%d}" % n) for n in range(5)])
    assert len(set(firsts)) == 1 and firsts[0] == b"200 \n{0}"
    assert await keys.keep(bound, None) == b"200 \n{0}"
    found = await bound_in(rig, key)
    assert found is not None and found.answer == b"200 \n{0}"


async def test_a_refusal_takes_a_key_that_is_free(rig: StoreRig, keys: KeptAnswers) -> None:
    key = a_key()
    assert await keys.keep_unbound(key, REFUSED, PAYMENT, b"404 PAYMENT_NOT_FOUND\n{}")
    assert not await keys.keep_unbound(key, REFUSED, PAYMENT, b"409 INVALID_STATE\n{}")
    found = await bound_in(rig, key)
    assert found is not None and found.answer == b"404 PAYMENT_NOT_FOUND\n{}"
    alone = await keys.find(key)
    assert alone is not None and replace(alone, age_s=0.0) == replace(found, age_s=0.0)
    assert await keys.find(a_key("k3")) is None
    taken = keyed(create("o1"), key=key, subject=CREATED, answered=True)
    assert await rig.store.commit(taken) is Committed.CONFLICT
    assert (await rig.store.load(PAYMENT)).payment is None
    strange = a_key("k2")
    assert await keys.keep_unbound(strange, REFUSED, "pay_\x00", b"404 PAYMENT_NOT_FOUND\n{}")


def test_no_two_scopes_are_one() -> None:
    scopes = [
        ("user:a", "POST", "/p", "k"), ("user:a", "POST", "/pk", ""), ("user:aPOST", "", "/p", "k"),
        ("service", "POST", "/p", "k"), ("user:a", "PUT", "/p", "k"), ("user:a", "POST", "/p", "K"),
        ("user:a:4", "POST", "/p", "k"), ("user:a", "4:POST", "/p", "k"),
    ]  # fmt: skip
    ids = {request_key(*scope, b"{}").command_id for scope in scopes}
    assert len(ids) == len(scopes)
    assert request_key(*scopes[0], b"{}") == request_key(*scopes[0], b"{}")
    assert request_key(*scopes[0], b"{}").fingerprint != request_key(*scopes[0], b"{ }").fingerprint
