"""Kept events of providers and what they do to payments, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from rigs.stores import eventually
from rigs.webhook_rig import ID, PAID, YES, WebhookRig, webhook_rig
from servers.waiting import until

from payment_service.adapters.postgres.webhooks import UNREADABLE_TRIES_MAX
from payment_service.core import commands as c
from payment_service.core.errors import Unavailable
from payment_service.core.payment import status_of
from payment_service.core.ports import Answer
from payment_service.core.terms import AttemptState, Kind, Status, Verdict
from payment_service.core.use_cases.receive_webhook import OLD_EVENT_S, PARKED_S_MAX, PATIENCE_S
from payment_service.core.webhooks import Approved, AttemptNews, MethodNews, RefundNews, WebhookStatus

REFUNDED = RefundNews(Answer(Verdict.APPROVED, "re_1", None, 4000, "USD"))
NO = AttemptNews(Kind.CHARGE, Answer(Verdict.DECLINED, "ch_1"))


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[WebhookRig]:
    async with webhook_rig(database_url) as opened:
        yield opened


async def test_an_event_is_kept_once_and_applied_once(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    event = rig.notice("evt_1", PAID)
    kept = await asyncio.gather(*(rig.webhooks.keep(event) for _ in range(5)))
    assert sorted(kept) == [False, False, False, False, True]
    await rig.swept(event)
    paid = await rig.payment()
    assert (status_of(paid), rig.rows()) == (Status.SUCCEEDED, [("evt_1", "PROCESSED", "")])
    assert await rig.webhooks.replay() == 1
    await rig.swept()
    assert (await rig.payment(), rig.rows()) == (paid, [("evt_1", "PROCESSED", "")])


async def test_the_body_is_sealed_and_bound_to_its_event(rig: WebhookRig) -> None:
    event = replace(rig.notice("evt_secret_1", PAID), body=b"evt_secret_body")
    await rig.webhooks.keep(event)
    await rig.webhooks.keep(replace(event, event_id="evt_2"))
    assert (
        rig.sql("select 1 from payment_service.payment_webhooks where position('secret_body' in body::text) > 0") == []
    )
    rig.sql(
        "update payment_service.payment_webhooks a set body = b.body from payment_service.payment_webhooks b"
        " where a.event_id = 'evt_2' and b.event_id = 'evt_secret_1'"
    )
    claimed = await rig.webhooks.claim(10, 40.0)
    assert [(one.webhook.event_id, one.webhook.body) for one in claimed] == [("evt_secret_1", b"evt_secret_body")]
    assert rig.rows()[1] == ("evt_2", "RECEIVED", "UNREADABLE")  # another worker may have its key
    for _ in range(UNREADABLE_TRIES_MAX):
        rig.sql(
            "update payment_service.payment_webhooks set due_at = now() where event_id = 'evt_2' and due_at > now()"
        )
        await rig.webhooks.claim(10, 40.0)
    assert rig.rows()[1] == ("evt_2", "FAILED", "UNREADABLE")


async def test_a_claim_is_for_one_and_an_old_result_is_fenced_off(rig: WebhookRig) -> None:
    await rig.webhooks.keep(rig.notice("evt_1", PAID))
    (first,) = await rig.webhooks.claim(10, 0.0)
    (second,) = await rig.webhooks.claim(10, 40.0)
    assert await rig.webhooks.claim(10, 40.0) == []
    done = await rig.apply(second)
    await rig.webhooks.settle(second, done)
    await rig.webhooks.settle(first, replace(done, status=WebhookStatus.FAILED))
    assert rig.rows() == [("evt_1", "PARKED", "PAYMENT_UNKNOWN")]


async def test_an_event_before_its_payment_is_parked_and_joined(rig: WebhookRig) -> None:
    await rig.swept(rig.notice("evt_1", PAID))
    assert rig.rows() == [("evt_1", "PARKED", "PAYMENT_UNKNOWN")]
    await rig.create()
    await rig.start()
    await rig.swept_later()
    assert (status_of(await rig.payment()), rig.rows()) == (Status.SUCCEEDED, [("evt_1", "PROCESSED", "")])


async def test_a_payment_committed_while_its_event_is_parked_is_seen_at_once(rig: WebhookRig) -> None:
    settle = rig.webhooks.settle

    async def and_then_it_is_there(claimed: object, applied: object) -> None:
        await settle(claimed, applied)  # type: ignore[arg-type]
        if rig.rows()[0][1] == "PARKED":
            await rig.create()
            await rig.start()

    rig.webhooks.settle = and_then_it_is_there  # type: ignore[method-assign, assignment]
    await rig.swept(rig.notice("evt_1", PAID))
    assert (status_of(await rig.payment()), rig.rows()) == (Status.SUCCEEDED, [("evt_1", "PROCESSED", "")])


async def test_what_is_parked_too_long_is_for_a_person(rig: WebhookRig) -> None:
    await rig.swept(rig.notice("evt_1", PAID))
    await rig.swept_later(PARKED_S_MAX + 1)
    assert rig.rows() == [("evt_1", "FAILED", "PAYMENT_UNKNOWN")]
    await rig.create()
    await rig.start()
    assert await rig.webhooks.replay(status="FAILED") == 1
    await rig.swept()
    assert status_of(await rig.payment()) is Status.SUCCEEDED


async def test_a_refund_before_its_charge_waits(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    await rig.swept(rig.notice("evt_refund", REFUNDED))
    assert rig.rows() == [("evt_refund", "RECEIVED", "BEFORE_ITS_CHARGE")]
    await rig.swept(rig.notice("evt_charge", PAID))
    await rig.swept_later()
    payment = await rig.payment()
    assert (payment.captured, payment.refunded, payment.review) == (9999, 4000, ())
    assert {row[1] for row in rig.rows()} == {"PROCESSED"}


async def test_one_event_may_bring_the_charge_and_its_refund(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    bare = rig.notice("evt_1", REFUNDED)
    rig.reader.fresh["evt_1"] = replace(rig.reader.notices[bare.body], news=(PAID, REFUNDED))
    await rig.swept(bare)
    payment = await rig.payment()
    assert (payment.captured, payment.refunded, rig.reader.asked) == (9999, 4000, ["evt_1"])


async def test_an_object_that_is_not_the_payment_s_is_flagged_and_nothing_else(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    own = AttemptNews(Kind.CHARGE, replace(YES, amount_minor=1, object_id="obj_own"))
    await rig.swept(rig.notice("evt_1", own, object_id="obj_own"))
    assert rig.rows() == [("evt_1", "PARKED", "OBJECT_UNKNOWN")]
    await rig.swept_later(PATIENCE_S + 1)
    payment = await rig.payment()
    assert rig.rows() == [("evt_1", "FAILED", "WEBHOOK_OF_UNKNOWN_OBJECT")]
    assert (payment.captured, status_of(payment)) == (0, Status.PROCESSING)
    assert payment.review == ("WEBHOOK_OF_UNKNOWN_OBJECT",)


async def test_late_news_of_an_earlier_object_finds_its_attempt(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start(Verdict.DECLINED)
    await rig.start(object_id="obj_2")
    await rig.swept(rig.notice("evt_1", replace(PAID, answer=replace(YES, provider_id="ch_9"))))
    payment = await rig.payment()
    assert payment.attempts[0].contradicted_by == "APPROVED"
    assert (payment.captured, payment.attempts[1].state) == (9999, AttemptState.OPEN)


async def test_an_event_that_names_no_payment_finds_it_by_the_charge(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start(Verdict.APPROVED)
    await rig.swept(rig.notice("evt_1", REFUNDED, payment_id=None, object_id=None, charge_id="ch_1"))
    assert (await rig.payment()).refunded == 4000
    await rig.swept(rig.notice("evt_2", REFUNDED, payment_id=None, object_id=None, charge_id="ch_of_others"))
    assert rig.rows()[1] == ("evt_2", "IGNORED", "NOT_OURS")


async def test_an_object_that_the_provider_does_not_have_is_shown_to_a_person(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    event = rig.notice("evt_1", PAID, review=("LIVEMODE_DIFFERS",))
    rig.reader.fresh["evt_1"] = replace(rig.reader.notices[event.body], news=(), review=("OBJECT_MISSING",))
    await rig.swept(event)
    payment = await rig.payment()
    assert (payment.captured, payment.review) == (0, ("OBJECT_MISSING",))
    assert rig.rows() == [("evt_1", "FAILED", "OBJECT_MISSING")]
    foreign = MethodNews("pm_1", detached=True)
    await rig.swept(rig.notice("evt_2", foreign, payment_id=None, object_id=None, review=("LIVEMODE_DIFFERS",)))
    assert (rig.methods, rig.rows()[1]) == ([], ("evt_2", "IGNORED", "LIVEMODE_DIFFERS"))
    empty = rig.notice("evt_3", refetch=True)  # an event that only says: ask me
    rig.reader.fresh["evt_3"] = replace(rig.reader.notices[empty.body], news=(PAID,), refetch=False)
    await rig.swept(empty)
    assert (await rig.payment()).captured == 9999


async def test_a_provider_that_cannot_be_asked_is_asked_later(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    event = rig.notice("evt_1", PAID, refetch=True)
    rig.reader.fresh["evt_1"] = Unavailable("away", code="PROVIDER_UNAVAILABLE")
    await rig.swept(event)
    await rig.swept_later(3 * PARKED_S_MAX)
    assert rig.rows() == [("evt_1", "RECEIVED", "PROVIDER_UNAVAILABLE")]
    del rig.reader.fresh["evt_1"]
    await rig.swept_later()
    assert status_of(await rig.payment()) is Status.SUCCEEDED


async def test_an_old_event_is_asked_for_and_the_present_counts(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    event = rig.notice("evt_1", NO, created_at_ms=int(1000 * (rig.apply.clock.now_ms() / 1000 - OLD_EVENT_S - 1)))
    rig.reader.fresh["evt_1"] = replace(rig.reader.notices[event.body], news=(PAID,))
    await rig.swept(event)
    assert (status_of(await rig.payment()), rig.reader.asked) == (Status.SUCCEEDED, ["evt_1"])


async def test_what_concerns_nobody_is_ignored_and_what_cannot_be_read_fails(rig: WebhookRig) -> None:
    await rig.swept(rig.notice("evt_1"), replace(rig.notice("evt_2", PAID), body=b"not an event"))
    assert rig.rows() == [("evt_1", "IGNORED", ""), ("evt_2", "FAILED", "MALFORMED_JSON")]
    method = MethodNews("pm_1", detached=True)
    await rig.swept(rig.notice("evt_3", method, payment_id=None, object_id=None))
    assert (rig.methods, rig.rows()[2][1]) == ([("MOCK", method)], "PROCESSED")


async def test_an_approval_is_captured_without_the_browser_and_once(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    now = rig.apply.clock.now_ms()
    await rig.execute(c.RequireAction(ID, "", now, 1, "redirect", now + 1_000_000))
    await rig.swept(rig.notice("evt_1", Approved()), rig.notice("evt_2", Approved()))
    await eventually(lambda: rig.is_in(Status.SUCCEEDED))
    await rig.webhooks.replay()
    await rig.swept()
    await rig.swept_later()
    sent = [call.object_id for what, call in rig.provider.calls if what == "send"]
    assert (sent, (await rig.payment()).captured) == (["obj_1"], 9999)


async def test_a_bug_of_ours_hits_one_event_and_is_tried_again(rig: WebhookRig) -> None:
    await rig.create()
    await rig.start()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    broken = rig.notice("evt_1", PAID, refetch=True)
    rig.reader.fresh["evt_1"] = RuntimeError("a bug")
    await rig.swept(broken, rig.notice("evt_2", PAID))
    assert rig.rows() == [("evt_1", "RECEIVED", "BUG:RuntimeError"), ("evt_2", "PROCESSED", "")]
    for _ in range(10):
        await rig.swept_later()
    assert rig.rows()[0] == ("evt_1", "FAILED", "BUG:RuntimeError")


async def test_many_at_once_are_applied_and_counted(rig: WebhookRig) -> None:
    runner = asyncio.create_task(rig.sweep.run())
    await asyncio.gather(*(rig.webhooks.keep(rig.notice(f"evt_{number}")) for number in range(500)))
    rig.sweep.wake()
    left = "select count(*) from payment_service.payment_webhooks where status <> 'IGNORED'"
    await until(lambda: rig.sql(left) == [(0,)], "all are applied")
    await rig.sweep.stop(1.0)
    runner.cancel()
    assert rig.metrics.gauges["webhooks_waiting", "PARKED"] == 0


async def test_an_old_row_that_is_replayed_in_the_same_moment_stays(rig: WebhookRig) -> None:
    await rig.swept(rig.notice("evt_1"))
    rig.sql("update payment_service.payment_webhooks set received_at = now() - interval '31 days'")
    with closing(psycopg2.connect(rig.url)) as operator, operator.cursor() as cursor:
        cursor.execute("update payment_service.payment_webhooks set due_at = now()")
        removing = asyncio.create_task(rig.webhooks.remove_old(30 * 86400, 100))
        await asyncio.sleep(0.3)  # it waits for the row
        operator.commit()
        assert await removing == 0
    assert len(rig.rows()) == 1


async def test_old_rows_leave_and_open_ones_stay(rig: WebhookRig) -> None:
    await rig.swept(rig.notice("evt_1"), rig.notice("evt_2", PAID))
    assert await rig.webhooks.remove_old(3600, 100) == 0
    rig.sql("update payment_service.payment_webhooks set received_at = now() - interval '31 days'")
    assert await rig.webhooks.remove_old(30 * 86400, 100) == 1
    assert rig.rows() == [("evt_2", "PARKED", "PAYMENT_UNKNOWN")]
    assert (await rig.webhooks.waiting())["PARKED"][0] == 1
