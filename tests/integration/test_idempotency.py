"""Idempotency-Key over HTTP: two workers, one PostgreSQL, a provider that takes its time and keeps books (contract §3).
A request is repeated at the other worker. The judge is what the provider moved."""

import asyncio

import pytest
from rigs.keyed_site import LATENCY_S, VISA, Shop, is_the_same, until_told
from rigs.ledger_provider import DROP_ANSWER, HANG_AFTER
from servers.postgres import execute as sql

from payment_service.core.ids import payment_id_of
from payment_service.core.terms import Kind

NO, SECURE = {"paymentMethodId": "tok_no"}, {"paymentMethodId": "tok_3ds"}


# --- create ----------------------------------------------------------------------------------------------------


async def test_create_is_told_again_word_for_word_whatever_came_after(shop: Shop) -> None:
    body = {"orderId": "o1", "amount": 10, "metadata": {"a": [1, {"ü": None}]}, "description": 'x "y"'}
    first = await shop.a.post("/payments", body, key="k")
    assert first.status == 201
    path = f"/payments/{payment_id_of('o1')}"
    assert (await shop.a.post(f"{path}/process", VISA)).status == 200
    again = await shop.b.post("/payments", body, key="k")
    assert is_the_same(first, again) and again.data["status"] == "PENDING"
    without = await shop.b.post("/payments", body)
    assert (without.status, without.replayed, without.data["status"]) == (200, False, "SUCCEEDED")
    idle = await shop.a.post("/payments", body, key="k2")
    assert idle.status == 200
    assert (await shop.a.post(f"{path}/refund", {"amount": 4})).status == 200
    assert is_the_same(idle, await shop.b.post("/payments", body, key="k2"))


async def test_another_body_is_refused_and_starts_nothing(shop: Shop) -> None:
    body = {"orderId": "o1", "amount": 10}
    assert (await shop.a.post("/payments", body, key="k")).status == 201
    for other in ({**body, "amount": 11}, {"orderId": "o2", "amount": 10}):
        told = await shop.b.post("/payments", other, key="k")
        assert (told.status, told.code, told.replayed) == (422, "IDEMPOTENCY_MISMATCH", False)
    assert (await shop.b.post("/payments", b'{ "amount":10,\n "orderId":"o1" }', key="k")).replayed
    assert sql(shop.url, "select count(*) from payment_service.payments") == [(1,)]
    path = await shop.charged("o3")
    assert (await shop.a.post(f"{path}/refund", {"amount": 1}, key="k")).status == 200
    assert (await shop.b.post(f"{path}/refund", {"amount": 2}, key="k")).code == "IDEMPOTENCY_MISMATCH"
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


async def test_a_key_is_one_users_on_one_path(shop: Shop) -> None:
    assert (await shop.a.post("/payments", {"orderId": "o1", "amount": 10}, key="k")).status == 201
    assert (await shop.a.post("/payments", {"orderId": "o2", "amount": 5}, key="k", user="bob")).status == 201
    path = await shop.charged("o3")
    body = {"paymentId": payment_id_of("o3"), "amount": 1}
    done = [
        await shop.a.post(f"{path}/refund", {"amount": 1}, key="k"), await shop.b.post("/refunds", body, key="k"),
        await shop.a.post("/refunds", body, key="k", user=None),
    ]  # fmt: skip
    assert [(told.status, told.replayed) for told in done] == [(200, False)] * 3
    assert is_the_same(done[2], await shop.b.post("/refunds", body, key="k", user=None))
    assert shop.moved() == {"CHARGE": 1, "REFUND": 3}


async def test_a_key_in_quotes_is_the_same_key(shop: Shop) -> None:
    path = await shop.charged()
    first = await shop.a.post(f"{path}/refund", {"amount": 1}, key="8e03978e-40d5")
    assert is_the_same(first, await shop.b.post(f"{path}/refund", {"amount": 1}, key='"8e03978e-40d5"'))
    assert shop.moved()["REFUND"] == 1


@pytest.mark.parametrize("key", ["", '""', "a b", '"open', '"a\\b"', "x" * 256, "kéy"])
async def test_what_cannot_be_a_key_starts_nothing(shop: Shop, key: str) -> None:
    told = await shop.a.post("/payments", {"orderId": "o1", "amount": 10}, key=key)
    assert told.status in (400, 422)
    assert sql(shop.url, "select count(*) from payment_service.payments") == [(0,)]


async def test_what_would_not_go_any_more_is_told_as_it_went(shop: Shop) -> None:
    body = {"orderId": "o1", "amount": 10}
    first = await shop.a.post("/payments", body, key="k")
    path = f"/payments/{payment_id_of('o1')}"
    charged = await shop.a.post(f"{path}/process", VISA, key="k")
    shop.b.providers.clear()  # no longer configured
    assert (await shop.b.post("/payments", {"orderId": "o2", "amount": 10})).code == "PROVIDER_NOT_CONFIGURED"
    assert is_the_same(first, await shop.b.post("/payments", body, key="k"))
    assert is_the_same(charged, await shop.b.post(f"{path}/process", VISA, key="k"))
    assert (await shop.b.post("/payments", {**body, "amount": "1.234"}, key="k")).code == "IDEMPOTENCY_MISMATCH"


# --- process ---------------------------------------------------------------------------------------------------


async def test_a_charge_is_told_again_also_after_a_refund(shop: Shop) -> None:
    path = await shop.created()
    first = await shop.a.post(f"{path}/process", VISA, key="k")
    assert (first.status, first.data["status"]) == (200, "SUCCEEDED")
    assert (await shop.a.post(f"{path}/refund")).data["payment"]["status"] == "REFUNDED"
    assert is_the_same(first, await shop.b.post(f"{path}/process", VISA, key="k"))
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


async def test_a_decline_is_told_again_also_after_a_yes(shop: Shop) -> None:
    path = await shop.created()
    first = await shop.a.post(f"{path}/process", NO, key="k")
    assert (first.status, first.code) == (402, "CARD_DECLINED")
    assert first.envelope["declineCode"] == "insufficient_funds"
    assert is_the_same(first, await shop.b.post(f"{path}/process", NO, key="k"))
    assert (await shop.b.post(f"{path}/process", VISA, key="k2")).status == 200
    assert is_the_same(first, await shop.a.post(f"{path}/process", NO, key="k"))
    assert shop.moved() == {"CHARGE": 1}


async def test_what_the_shopper_must_do_is_told_again_and_kept_sealed(shop: Shop) -> None:
    path = await shop.created()
    first = await shop.a.post(f"{path}/process", SECURE, key="k")
    assert first.data["nextAction"]["url"] == "https://bank.example/secret"
    assert (await shop.a.post(f"{path}/cancel")).status == 200
    assert is_the_same(first, await shop.b.post(f"{path}/process", SECURE, key="k"))
    (row,) = sql(
        shop.url, "select encode(answer, 'escape'), idempotency_keys::text from payment_service.idempotency_keys"
    )
    assert "bank.example" not in str(row) and "tok_3ds" not in str(row)


async def test_202_is_told_anew_until_there_is_an_answer(shop: Shop) -> None:
    path = await shop.created()
    shop.provider.faults["send:CHARGE"] = [HANG_AFTER]
    first = asyncio.create_task(shop.a.post(f"{path}/process", VISA, key="k"))
    await asyncio.sleep(LATENCY_S)
    early = await shop.b.post(f"{path}/process", VISA, key="k")
    assert (early.status, early.code) == (409, "IDEMPOTENCY_IN_PROGRESS") and early.headers["Retry-After"] == "1"
    told = await first
    assert (told.status, told.replayed, told.data["status"]) == (202, False, "PROCESSING")
    again = await shop.b.post(f"{path}/process", VISA, key="k")
    assert (again.status, again.replayed) == (202, True)
    joined = await shop.b.post(f"{path}/process", VISA, key="k2")
    assert (joined.status, joined.replayed) == (202, False)
    shop.provider.release()
    landed = await until_told(shop, f"{path}/process", VISA, "k", 200)
    assert landed.data["status"] == "SUCCEEDED" and landed.replayed
    also = await until_told(shop, f"{path}/process", VISA, "k2", 200)
    assert also.data["status"] == "SUCCEEDED"
    await shop.a.post(f"{path}/refund")
    assert (await shop.a.post(f"{path}/process", VISA, key="k")).body == landed.body
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


async def test_202_and_then_a_no_starts_no_second_attempt(shop: Shop) -> None:
    path = await shop.created()
    shop.provider.pending = {Kind.CHARGE}
    assert (await shop.a.post(f"{path}/process", VISA, key="k")).status == 202
    joined = await shop.b.post(f"{path}/process", VISA, key="k2")
    assert (joined.status, joined.replayed) == (202, False)
    (thing,) = shop.provider.things.values()
    thing.state = "cancelled"  # there, by somebody else: the look-up says so
    for key in ("k", "k2"):
        told = await until_told(shop, f"{path}/process", VISA, key, 402)
        assert told.code == "CARD_DECLINED" and told.replayed
    assert shop.provider.movements == []
    assert sql(shop.url, "select count(*) from payment_service.transactions where type = 'CHARGE'") == [(1,)]


async def test_what_was_not_sent_frees_the_key_once(shop: Shop) -> None:
    path = await shop.created()
    shop.provider.unsent[Kind.CHARGE] = 2
    for site in (shop.a, shop.b):
        told = await site.post(f"{path}/process", VISA, key="k")
        assert (told.status, told.code, told.replayed) == (503, "PROVIDER_UNAVAILABLE", False)
    both = await asyncio.gather(*[site.post(f"{path}/process", VISA, key="k") for site in (shop.a, shop.b)])
    assert {told.status for told in both} <= {200, 409}
    (first,) = [told for told in both if not told.replayed and told.status == 200]
    assert is_the_same(first, await shop.b.post(f"{path}/process", VISA, key="k"))
    assert (await shop.b.post(f"{path}/process", NO, key="k")).code == "IDEMPOTENCY_MISMATCH"
    shop.provider.unsent[Kind.REFUND] = 1
    assert (await shop.a.post(f"{path}/refund", {"amount": 3}, key="r")).status == 503
    refunded = await shop.b.post(f"{path}/refund", {"amount": 3}, key="r")
    assert refunded.data["refund"]["status"] == "COMPLETED"
    assert is_the_same(refunded, await shop.a.post(f"{path}/refund", {"amount": 3}, key="r"))
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


# --- capture, cancel, refund -----------------------------------------------------------------------------------


async def test_capture_once(shop: Shop) -> None:
    path = await shop.created(captureMethod="manual")
    assert (await shop.a.post(f"{path}/process", VISA)).data["status"] == "AUTHORIZED"
    racing = [site.post(f"{path}/capture", {"amount": 4}, key="k") for site in (shop.a, shop.b) for _ in range(5)]
    answers = await asyncio.gather(*racing)
    assert {told.status for told in answers} == {200, 409}
    (first,) = [told for told in answers if told.status == 200 and not told.replayed]
    assert is_the_same(first, await shop.b.post(f"{path}/capture", {"amount": 4}, key="k"))
    assert (await shop.b.post(f"{path}/capture", {"amount": 5}, key="k")).code == "IDEMPOTENCY_MISMATCH"
    assert shop.moved() == {"AUTHORIZE": 1, "CAPTURE": 1} and shop.provider.taken(payment_id_of("o1")) == 400


async def test_a_cancel_that_is_sent_again_does_not_cancel_what_was_opened_anew(shop: Shop) -> None:
    path = await shop.created()
    first = await shop.a.post(f"{path}/cancel", {"reason": "changed my mind"}, key="k")
    assert first.data["status"] == "CANCELLED"
    opened = await shop.a.post("/payments", {"orderId": "o1", "amount": 10, "currency": "USD"}, key="c")
    assert (opened.status, opened.data["status"]) == (201, "PENDING")
    assert is_the_same(first, await shop.b.post(f"{path}/cancel", {"reason": "changed my mind"}, key="k"))
    assert (await shop.b.post(f"{path}/process", VISA)).data["status"] == "SUCCEEDED"
    again = await shop.b.post("/payments", {"orderId": "o1", "amount": 10, "currency": "USD"}, key="c")
    assert is_the_same(opened, again)


async def test_a_cancel_voids_once(shop: Shop) -> None:
    path = await shop.created(captureMethod="manual")
    assert (await shop.a.post(f"{path}/process", VISA)).data["status"] == "AUTHORIZED"
    racing = [site.post(f"{path}/cancel", key="k") for site in (shop.a, shop.b) for _ in range(5)]
    answers = await asyncio.gather(*racing)
    assert {told.status for told in answers} <= {200, 409}
    (first,) = [told for told in answers if told.status == 200 and not told.replayed]
    assert first.data["status"] == "CANCELLED"
    assert is_the_same(first, await shop.b.post(f"{path}/cancel", key="k"))
    assert shop.provider.count("send:VOID") == 1
    stranger = await shop.b.post(f"{path}/cancel", key="k", user="bob")
    assert stranger.code == "PAYMENT_NOT_FOUND"


async def test_a_refund_with_one_key_is_one_and_with_two_keys_two(shop: Shop) -> None:
    path = await shop.charged()
    first = await shop.a.post(f"{path}/refund", {"amount": 3, "reason": "broken"}, key="k")
    again = await shop.b.post(f"{path}/refund", {"amount": 3, "reason": "broken"}, key="k")
    assert first.status == 200 and is_the_same(first, again)
    other = await shop.b.post(f"{path}/refund", {"amount": 3, "reason": "broken"}, key="k2")
    assert other.data["refund"]["id"] != first.data["refund"]["id"]
    assert (await shop.b.post(f"{path}/refund", {"amount": 3})).status == 200
    assert shop.moved() == {"CHARGE": 1, "REFUND": 3} and shop.provider.taken(payment_id_of("o1")) == 100


async def test_a_refund_that_is_not_known_yet_is_told_anew(shop: Shop) -> None:
    path = await shop.charged()
    shop.provider.faults["send:REFUND"] = [DROP_ANSWER]
    first = await shop.a.post(f"{path}/refund", {"amount": 3}, key="k")
    assert (first.status, first.data["refund"]["status"]) == (200, "UNKNOWN")
    for _ in range(100):
        told = await shop.b.post(f"{path}/refund", {"amount": 3}, key="k")
        assert told.status == 200 and told.replayed and told.data["refund"]["id"] == first.data["refund"]["id"]
        if told.data["refund"]["status"] == "COMPLETED":
            break
        await asyncio.sleep(0.05)
    assert (await shop.a.post(f"{path}/refund", {"amount": 3}, key="k")).body == told.body
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


# --- refusals --------------------------------------------------------------------------------------------------


async def test_a_refusal_is_told_again_although_it_would_go_now(shop: Shop) -> None:
    path = f"/payments/{payment_id_of('o1')}"
    missing = await shop.a.post(f"{path}/process", VISA, key="k")
    assert (missing.status, missing.code) == (404, "PAYMENT_NOT_FOUND")
    await shop.created()
    early = await shop.a.post(f"{path}/refund", {"amount": 3}, key="k")
    assert (early.status, early.code) == (409, "INVALID_STATE")
    assert (await shop.a.post(f"{path}/process", VISA)).status == 200
    assert is_the_same(missing, await shop.b.post(f"{path}/process", VISA, key="k"))
    assert is_the_same(early, await shop.b.post(f"{path}/refund", {"amount": 3}, key="k"))
    exists = await shop.a.post("/payments", {"orderId": "o1", "amount": 99}, key="k")
    assert (exists.status, exists.code) == (409, "PAYMENT_EXISTS")
    assert is_the_same(exists, await shop.b.post("/payments", {"orderId": "o1", "amount": 99}, key="k"))
    assert shop.moved() == {"CHARGE": 1}


async def test_what_is_about_the_caller_or_cannot_be_read_takes_no_key(shop: Shop) -> None:
    assert (await shop.a.post("/payments", {"orderId": "o1", "amount": 10}, key="k", user=None)).status == 403
    assert (await shop.a.post("/payments", {"orderId": "o1"}, key="k")).status == 422
    assert (await shop.a.post("/payments", b"{", key="k")).status == 400
    assert sql(shop.url, "select count(*) from payment_service.idempotency_keys") == [(0,)]
    assert (await shop.a.post("/payments", {"orderId": "o1", "amount": 10}, key="k")).status == 201


# --- at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["create", "process", "refund"])
async def test_fifty_at_once_are_one(shop: Shop, what: str) -> None:
    if what == "create":
        path, body = "/payments", {"orderId": "o1", "amount": 10}
    else:
        path = await (shop.charged() if what == "refund" else shop.created())
        path, body = f"{path}/{what}", VISA if what == "process" else {"amount": 1}
    sites = [shop.a, shop.b] * 25
    answers = await asyncio.gather(*[site.post(path, body, key="k") for site in sites])
    firsts = [told for told in answers if told.status < 300 and not told.replayed]
    assert len(firsts) == 1
    for told in answers:
        assert told.code == "IDEMPOTENCY_IN_PROGRESS" or told.body == firsts[0].body, told
    assert is_the_same(firsts[0], await shop.b.post(path, body, key="k"))
    assert shop.moved() == {"create": {}, "process": {"CHARGE": 1}, "refund": {"CHARGE": 1, "REFUND": 1}}[what]
    if what == "create":
        assert {told.status for told in answers} == {201}
