"""What every CallQueue does, over memory and PostgreSQL alike: no call is lost, none is sent twice."""

import asyncio

import pytest
from rigs.changes import AT_MS, answer, change_of, charge, create
from rigs.stores import StoreRig

from payment_service.core import commands as c
from payment_service.core.payment import status_of
from payment_service.core.ports import Committed
from payment_service.core.terms import Kind, Source, Status, Verdict


@pytest.fixture
def rig(store_rig: StoreRig) -> StoreRig:
    return store_rig


async def _charged(rig: StoreRig, *, lease_s: float = 30.0) -> str:
    """A payment whose charge this worker has committed for itself."""
    created = change_of(create("o1"))
    await rig.store.commit(created)
    loaded = await rig.store.load(created.payment_id)
    assert await rig.store.commit(change_of(charge(created.payment_id), loaded, lease_s=lease_s)) == "COMMITTED"
    return created.payment_id


async def test_a_scheduled_call_is_claimed_once_and_as_it_was(rig: StoreRig) -> None:
    change = change_of(create("o1", charge=True))
    await rig.store.commit(change)
    claimed = await rig.claim_until("w1")
    assert (claimed.call, claimed.tries) == (change.intents[0].call, 0)
    assert claimed.call.method_token == "tok_visa"
    assert await rig.queue.claim("w2", 10, 30.0) == []
    assert await rig.queue.renew(claimed.call.key, "w1", 30.0)
    assert not await rig.queue.renew(claimed.call.key, "w2", 30.0)


async def test_a_claim_comes_back_when_its_lease_ends(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    first = await rig.claim_until("w1", lease_s=0.05)
    again = await rig.claim_until("w2")
    assert (again.call, again.tries) == (first.call, 1)
    assert not await rig.queue.renew(first.call.key, "w1", 30.0)


async def test_a_claim_limit_is_kept(rig: StoreRig) -> None:
    for n in range(3):
        await rig.store.commit(change_of(create(f"o{n}", charge=True)))
    assert len(await rig.queue.claim("w1", 2, 30.0)) == 2
    assert len(await rig.queue.claim("w1", 2, 30.0)) == 1


async def test_a_call_that_was_not_sent_counts_as_never_sent(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    first = await rig.claim_until("w1")
    await rig.queue.reschedule(first.call.key, "w2", 0.0, sent=False)  # not its owner: nothing happens
    assert await rig.queue.claim("w2", 10, 30.0) == []
    await rig.queue.reschedule(first.call.key, "w1", 0.0, sent=False)
    second = await rig.claim_until("w2")
    assert second.tries == 0
    await rig.queue.reschedule(first.call.key, "w2", 0.0, sent=True)
    assert (await rig.claim_until("w3")).tries == 1


async def test_not_sent_this_time_does_not_hide_that_somebody_else_may_have_sent_it(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    lost = await rig.claim_until("w1", lease_s=0.01)
    await rig.claim_until("w2")
    await rig.queue.reschedule(lost.call.key, "w2", 0.0, sent=False)
    assert (await rig.claim_until("w3")).tries == 1


async def test_each_of_many_at_once_gets_its_own_answer(rig: StoreRig) -> None:
    for n in range(3):
        await rig.store.commit(change_of(create(f"o{n}", charge=True)))
    first, second = await rig.queue.claim("w1", 2, 30.0)
    third = await rig.claim_until("w2")
    renewed = await asyncio.gather(*[rig.queue.renew(call.call.key, "w1", 60.0) for call in (third, first, second)])
    assert renewed == [False, True, True]
    await asyncio.gather(
        rig.queue.reschedule(first.call.key, "w1", 0.0, sent=False),
        rig.queue.reschedule(second.call.key, "w1", 0.0, sent=True),
        rig.queue.reschedule(third.call.key, "w1", 0.0, sent=True),
    )
    free = {call.call.key: call.tries for call in await rig.queue.claim("w3", 10, 30.0)}
    assert free == {first.call.key: 0, second.call.key: 1}


async def test_a_call_whose_worker_died_may_have_been_sent(rig: StoreRig) -> None:
    await _charged(rig, lease_s=0.2)
    assert await rig.queue.claim("w2", 10, 30.0) == []
    claimed = await rig.claim_until("w2")
    assert claimed.tries == 1  # never 0: "certainly never sent" would send it a second time


async def test_how_long_ago_it_may_have_been_sent_counts_from_the_first_time(rig: StoreRig) -> None:
    await _charged(rig, lease_s=0.2)
    first = await rig.claim_until("w2", lease_s=0.1)
    assert 0.2 <= first.sent_for_s < 5.0
    again = await rig.claim_until("w3")
    assert again.sent_for_s >= first.sent_for_s + 0.1


async def test_a_scheduled_call_counts_from_the_claim_that_may_have_sent_it(rig: StoreRig) -> None:
    await rig.store.commit(change_of(create("o1", charge=True)))
    await asyncio.sleep(0.2)  # it waited in the queue
    first = await rig.claim_until("w1")
    assert first.sent_for_s < 0.1
    await rig.queue.reschedule(first.call.key, "w1", 0.2, sent=False)
    second = await rig.claim_until("w2", lease_s=0.2)
    assert (second.tries, second.sent_for_s < 0.1) == (0, True)
    assert (await rig.claim_until("w3")).sent_for_s >= 0.2


async def test_who_asks_about_a_payment_gets_what_nobody_has_under_way(rig: StoreRig) -> None:
    payment_id = await _charged(rig, lease_s=0.3)
    assert await rig.queue.claim_of(payment_id, "w2", 10, 30.0) == []  # its worker may be sending it
    loaded = await rig.store.load(payment_id)
    await rig.store.commit(change_of(answer(payment_id, Verdict.UNKNOWN), loaded))
    assert await rig.queue.claim_of("pay_other", "w2", 10, 30.0) == []
    (claim,) = await rig.queue.claim_of(payment_id, "w2", 10, 30.0)
    assert claim.tries == 1 and claim.due_in_s is not None and 3.0 < claim.due_in_s <= 5.0
    assert await rig.queue.claim_of(payment_id, "w3", 10, 30.0) == []
    await rig.queue.reschedule(claim.call.key, "w2", claim.due_in_s, sent=True)
    (again,) = await rig.queue.claim_of(payment_id, "w3", 10, 30.0)
    assert again.tries == 1, "asking is no try"


async def test_who_asks_does_not_get_what_was_never_sent(rig: StoreRig) -> None:
    change = change_of(create("o1", charge=True))
    await rig.store.commit(change)
    assert await rig.queue.claim_of(change.payment_id, "w1", 10, 30.0) == []
    assert (await rig.claim_until("w1")).tries == 0


async def test_the_id_of_its_object_leaves_a_call_with_its_worker(rig: StoreRig) -> None:
    """It is committed in the middle of the call: given free then, others would look for what is only being sent."""
    payment_id = await _charged(rig, lease_s=0.3)
    loaded = await rig.store.load(payment_id)
    made = c.RecordObject(payment_id, "made", AT_MS + 2, 1, "obj_1")
    assert await rig.store.commit(change_of(made, loaded)) is Committed.COMMITTED
    assert await rig.queue.renew(f"{payment_id}:charge:1", "worker-1", 0.3)
    claimed = await rig.claim_until("w2")  # by the end of the lease, not by a look-up that was put in its place
    assert claimed.tries == 1


async def test_a_settled_call_is_not_claimed(rig: StoreRig) -> None:
    payment_id = await _charged(rig, lease_s=0.0)
    loaded = await rig.store.load(payment_id)
    await rig.store.commit(change_of(answer(payment_id, Verdict.DECLINED), loaded))
    assert await rig.queue.claim("w2", 10, 30.0) == []


async def test_an_unknown_outcome_has_no_owner_and_is_looked_at_later(rig: StoreRig) -> None:
    payment_id = await _charged(rig)
    loaded = await rig.store.load(payment_id)
    unknown = change_of(answer(payment_id, Verdict.UNKNOWN), loaded)
    await rig.store.commit(unknown)
    assert await rig.queue.claim("w2", 10, 30.0) == []
    key = f"{payment_id}:charge:1"
    assert not await rig.queue.renew(key, "worker-1", 30.0)
    assert status_of(unknown.steps[-1].after) is Status.UNKNOWN


async def test_a_refund_has_a_call_and_one_made_beside_us_has_none(rig: StoreRig) -> None:
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
