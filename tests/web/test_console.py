"""The console's pages: what is found and shown, what may be done by whom, and that what others wrote is no markup."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from rigs.console_site import ESCAPED, EVIL, HOOK, LETTER, PAGE, PAYMENT, ConsoleSite, console_site

from payment_service.core.dead_letters import ROW
from payment_service.core.payment import Payment, status_of
from payment_service.core.terms import Status
from payment_service.web.console import words

OPERATOR = "operator:eve"


@pytest.fixture
async def site() -> AsyncIterator[ConsoleSite]:
    async with console_site() as opened:
        yield opened


async def payment_of(site: ConsoleSite) -> Payment:
    payment = (await site.rig.store.load(PAYMENT)).payment
    assert payment is not None
    return payment


# --- finding and reading ---------------------------------------------------------------------------------------


async def test_a_payment_is_found_by_each_of_its_ids(site: ConsoleSite) -> None:
    await site.charged()
    await site.rig.create("o2")
    await site.sign_in("support")
    charge = (await payment_of(site)).attempts[0].provider_id
    for text in (PAYMENT, "o1", charge, f" {PAYMENT} "):
        assert (await site.get(f"/console?q={text}")).headers["Location"] == PAGE
    by_user = await site.get("/console?q=ann")
    assert by_user.status == 200
    assert PAGE in by_user.text
    assert "2 found" in by_user.text
    assert "Nothing has the id" in (await site.get("/console?q=nobody")).text


async def test_the_list_by_state_and_by_page(site: ConsoleSite) -> None:
    await site.charged()
    for number in range(30):
        await site.rig.create(f"more-{number}")
    await site.sign_in("support")
    first = await site.get("/console")
    assert "1–25 of 31" in first.text
    assert 'href="/console?from=25"' in first.text
    second = await site.get("/console?from=25")
    assert "26–31 of 31" in second.text
    assert 'rel="prev" href="/console?from=0"' in second.text
    assert "1–1 of 1" in (await site.get("/console?status=succeeded")).text
    for odd in ("-1", "x", "9" * 30, "1.5", "٣"):
        assert (await site.get(f"/console?from={odd}&status=<b>")).status == 200


async def test_what_a_payment_s_page_says(site: ConsoleSite) -> None:
    await site.charged(1234.5)
    await site.sign_in("admin")
    await site.act("refund", {"amount": "10", "reason": "damaged"})
    page = (await site.get(PAGE)).text
    for text in ("1,234.50 USD", "1,224.50 USD", "10.00 USD", "damaged", "Partly refunded", "eve (operator)",
                 "<svg class", "Provider: yes", "Refund: done", "tone-good"):  # fmt: skip
        assert text in page, text


@pytest.mark.parametrize("role", ["admin", "support"])
async def test_secrets_are_shown_to_nobody(site: ConsoleSite, role: str) -> None:
    """What lets whoever has it pay: the shopper's own link or client secret, and the card's token."""
    await site.rig.create(method="tok_threeDSecure")
    answered = await site.rig.process("tok_threeDSecure")
    assert answered.next_action is not None
    # The operator is the shopper, too: still not at the console.
    for user in ("eve", "ann"):
        await site.sign_in(role, user=user)
        page = await site.get(PAGE)
        assert page.status == 200
        for secret in (answered.next_action.url, answered.next_action.client_secret, "tok_threeDSecure"):
            assert not secret or secret not in page.text


async def test_a_payment_that_is_not_there(site: ConsoleSite) -> None:
    await site.sign_in("admin")
    for name in ("pay_nothing", "x" * 70, "%00", "..%2F..", "%3Cscript%3E"):
        answer = await site.get(f"/console/payments/{name}")
        assert answer.status == 404
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "<script>" not in answer.text
    assert {it.result for it in site.audited if it.action == "payment.read"} == {"PAYMENT_NOT_FOUND"}


async def test_every_state_event_and_reason_has_its_words() -> None:
    assert set(words.STATUSES) >= {status.value for status in Status}
    from payment_service.codecs.rest import event_word
    from payment_service.core import events

    classes = [name for name in vars(events) if name[0].isupper() and hasattr(getattr(events, name), "at_ms")]
    made = [name for name in classes if getattr(events, name).__module__ == events.__name__]
    assert set(words.EVENTS) == {event_word(name) for name in made}
    assert words.review_words("NO_ANSWER:attempt:1").endswith("(attempt 1).")
    assert words.review_words("NEVER_HEARD_OF") == "Never heard of."


# --- escaping --------------------------------------------------------------------------------------------------


async def test_nothing_that_a_stranger_wrote_is_markup(site: ConsoleSite) -> None:
    await site.rig.create(description=EVIL, metadata={"basket": EVIL, EVIL: "x"})
    await site.rig.process("tok_visa")
    await site.sign_in("admin", "<b>role</b>", user=f"eve{EVIL}")
    await site.act("refund", {"amount": "1", "reason": EVIL})
    for path in (PAGE, f"/console?q={EVIL}", "/console", "/console/dead-letters", "/console/dead-letters/letter?id=0/7",
                 f"/console/dead-letters?reason={EVIL}", "/console/webhooks", "/console/webhooks/5"):  # fmt: skip
        page = await site.get(path)
        assert page.status == 200, path
        assert ESCAPED in page.text, path
        for wrong in ("<script>alert", "<img", "<b>role", ">49<", "&amp;lt;"):
            assert wrong not in page.text, (path, wrong)


async def test_what_failed_to_be_done_is_escaped_too(site: ConsoleSite) -> None:
    await site.charged()
    await site.sign_in("admin")
    page = await site.act("refund", {"amount": f'1"{EVIL}', "reason": f'because"{EVIL}'})
    assert page.status == 422
    assert "<script>alert" not in page.text
    assert f"because&#34;{ESCAPED}" in page.text, "and it is still there, so that nobody types it twice"


async def test_card_data_is_never_shown(site: ConsoleSite) -> None:
    await site.sign_in("admin")
    page = (await site.get("/console/dead-letters/letter?id=0/7")).text
    assert "ann@shop.test" not in page
    assert "4242" not in page
    assert "tok_visa" not in page
    assert "[token]" in page
    assert "(text of 13)" in page, "of a personal field only its kind"


@pytest.mark.parametrize("text", ["4242 4242 4242 4242", "a\x00b", "", " ", "x" * 256, "a\u202eb"])
async def test_a_reason_that_cannot_be_one(site: ConsoleSite, text: str) -> None:
    await site.charged()
    await site.sign_in("admin")
    assert (await site.act("refund", {"amount": "1", "reason": text})).status == 422
    assert not (await payment_of(site)).refunds


# --- what may be done, by whom ---------------------------------------------------------------------------------


async def test_a_refund_is_the_operator_s_with_its_reason(site: ConsoleSite) -> None:
    await site.charged()
    await site.sign_in("admin")
    answer = await site.act("refund", {"amount": "10.50", "reason": "damaged in the post"})
    assert (answer.status, answer.headers["Location"]) == (303, f"{PAGE}?done=refund")
    (refund,) = (await payment_of(site)).refunds
    assert (refund.amount_minor, refund.by, refund.reason) == (1050, OPERATOR, "damaged in the post")
    told = site.audited[-1]
    assert (told.action, told.result, told.actor, told.detail) == (
        "payment.refund", "OK", OPERATOR, "damaged in the post",
    )  # fmt: skip
    assert told.payment_id == PAYMENT
    assert told.refund_id.endswith("_1")
    assert "The refund is asked for" in (await site.get(f"{PAGE}?done=refund")).text


async def test_a_button_that_is_pressed_twice_refunds_once(site: ConsoleSite) -> None:
    await site.charged()
    await site.sign_in("admin")
    page = await site.get(PAGE)
    fields = {"form_token": page.form_token, "once": page.once, "amount": "10", "reason": "damaged"}
    for _ in range(3):
        assert (await site.post(f"{PAGE}/refund", fields)).status == 303
    assert len((await payment_of(site)).refunds) == 1
    assert (await site.post(f"{PAGE}/refund", {**fields, "amount": "11"})).status == 422, "the form was used already"
    assert (await site.act("refund", {"amount": "10", "reason": "damaged"})).status == 303, "a page loaded anew may"
    assert len((await payment_of(site)).refunds) == 2


@pytest.mark.parametrize(
    ("setting", "role", "may"),
    [(("admin",), "admin", True), (("admin",), "support", False), (("support",), "support", True),
     (("owner",), "admin", False), (("owner",), "support", False), (("support", "owner"), "admin", False)],
)  # fmt: skip
async def test_refunds_are_for_the_refund_roles(setting: tuple[str, ...], role: str, may: bool) -> None:
    async with console_site(setting) as site:
        await site.charged()
        # The payment's own user: at the console that is no reason.
        await site.sign_in(role, user="ann")
        assert ("Why</label>" in (await site.get(PAGE)).text and f"{PAGE}/refund" in (await site.get(PAGE)).text) is may
        answer = await site.act("refund", {"amount": "1", "reason": "because"})
        assert answer.status == (303 if may else 403)
        assert bool((await payment_of(site)).refunds) is may
        assert site.audited[-1].result == ("OK" if may else "FORBIDDEN")
        assert site.audited[-1].actor == "operator:ann"


@pytest.mark.parametrize("amount", ["1000", "0", "-1", "1.001", "abc", "1e3", "NaN", "99.991", "1,50"])
async def test_an_amount_that_cannot_be_refunded(site: ConsoleSite, amount: str) -> None:
    await site.charged()
    await site.sign_in("admin")
    page = await site.act("refund", {"amount": amount, "reason": "because"})
    assert page.status == 422
    assert 'role="alert"' in page.text
    assert not (await payment_of(site)).refunds
    assert site.audited[-1].result in ("REFUND_EXCEEDS", "VALIDATION_ERROR")


async def test_a_cancellation(site: ConsoleSite) -> None:
    await site.rig.create()
    await site.sign_in("support")
    assert (await site.act("cancel", {"reason": "because"})).status == 403
    assert f"{PAGE}/cancel" not in (await site.get(PAGE)).text
    await site.sign_in("admin")
    assert (await site.act("cancel", {"reason": "the shopper called"})).status == 303
    assert status_of(await payment_of(site)) is Status.CANCELLED
    told = site.audited[-1]
    assert (told.action, told.actor, told.detail) == ("payment.cancel", OPERATOR, "the shopper called")
    event = (await site.rig.store.events(PAYMENT))[-1].event
    assert event.by == OPERATOR  # type: ignore[union-attr]


async def unknown(site: ConsoleSite) -> None:
    await site.rig.create()
    await site.rig.process("tok_timeout")
    assert status_of(await payment_of(site)) is Status.UNKNOWN


DECIDED = {"call": "attempt:1", "verdict": "approved", "provider_id": "ch_77", "reason": "seen", "looked": "yes"}


async def test_deciding_by_hand(site: ConsoleSite) -> None:
    await unknown(site)
    await site.sign_in("admin")
    assert "may or may not have done it" in (await site.get(PAGE)).text
    assert (await site.act("resolve", DECIDED)).status == 303
    payment = await payment_of(site)
    assert (status_of(payment), payment.attempts[0].provider_id) == (Status.SUCCEEDED, "ch_77")
    told = site.audited[-1]
    assert (told.action, told.result, told.actor, told.detail) == ("payment.resolve", "OK", OPERATOR, "seen")
    again = await site.act("resolve", DECIDED)
    assert again.status == 409
    assert "nothing to decide" in again.text


@pytest.mark.parametrize(
    "change",
    [{"looked": ""}, {"verdict": "maybe"}, {"call": "attempt:9"}, {"call": "x"}, {"call": "refund:1"}, {"reason": ""},
     {"verdict": "declined"}, {"amount": "-3"}, {"call": "attempt:٣"}, {"verdict": ""}],
)  # fmt: skip
async def test_what_cannot_be_decided(site: ConsoleSite, change: dict[str, str]) -> None:
    await unknown(site)
    await site.sign_in("admin")
    answer = await site.act("resolve", DECIDED | change)
    assert answer.status in (404, 409, 422)
    assert status_of(await payment_of(site)) is Status.UNKNOWN


async def test_support_decides_nothing_but_may_ask_the_provider(site: ConsoleSite) -> None:
    await unknown(site)
    await site.sign_in("support")
    assert (await site.act("resolve", DECIDED)).status == 403
    assert status_of(await payment_of(site)) is Status.UNKNOWN
    asked = await site.act("ask", {})
    assert (asked.status, asked.headers["Location"]) == (303, f"{PAGE}?done=ask")


async def test_an_action_on_a_payment_that_is_not_there(site: ConsoleSite) -> None:
    await site.charged()
    await site.sign_in("admin")
    page = await site.get(PAGE)
    fields = {"form_token": page.form_token, "once": "a", "reason": "because"}
    for action in ("refund", "cancel", "resolve", "ask"):
        more = DECIDED if action == "resolve" else {}
        answer = await site.post(f"/console/payments/pay_nothing/{action}", {**more, **fields})
        assert answer.status == 404, action


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [(b"{}", "application/json", 400), (b"reason=a&reason=b", None, 400), (b"reason=%ff", None, 400),
     (b"a=1&" * 100, None, 400), (b"reason=" + b"a" * 40_000, None, 413), (b"x=\xff", None, 400)],
)  # fmt: skip
async def test_a_form_that_is_none(site: ConsoleSite, body: bytes, kind: str | None, status: int) -> None:
    await site.sign_in("admin")
    headers = {"Content-Type": kind or "application/x-www-form-urlencoded"}
    answer = await site.client.post(f"{PAGE}/refund", data=body, headers=headers, allow_redirects=False)
    assert answer.status == status


# --- dead letters and webhooks ---------------------------------------------------------------------------------


async def test_a_letter_is_sent_again_by_an_admin_alone(site: ConsoleSite) -> None:
    path = "/console/dead-letters/letter?id=0/7"
    await site.sign_in("support")
    page = await site.get(path)
    assert "Send again" not in page.text
    fields = {"form_token": page.form_token, "id": "0/7"}
    assert (await site.post("/console/dead-letters/replay", fields)).status == 403
    assert site.letters.sent == []
    await site.sign_in("admin")
    fields["form_token"] = (await site.get(path)).form_token
    sent = await site.post("/console/dead-letters/replay", fields)
    assert (sent.status, "Sent to where it came from" in sent.text) == (200, True)
    assert site.letters.sent == [(LETTER.stamp, OPERATOR, False)]
    told = site.audited[-1]
    assert (told.action, told.result, told.actor, told.detail) == ("dead_letter.replay", "OK", OPERATOR, "letter 0/7")
    again = await site.post("/console/dead-letters/replay", fields)
    assert (again.status, "had been sent before" in again.text) == (409, True)
    assert (await site.post("/console/dead-letters/replay", fields | {"again": "yes"})).status == 200
    assert len(site.letters.sent) == 2


@pytest.mark.parametrize("name", ["", "x", "0/8", f"{ROW}1", "../../x", "%3Cscript%3E", "0/" + "9" * 40])
async def test_a_letter_that_is_not_there(site: ConsoleSite, name: str) -> None:
    await site.sign_in("admin")
    answer = await site.get(f"/console/dead-letters/letter?id={name}")
    assert answer.status in (404, 422)
    assert "<script>" not in answer.text


async def test_a_webhook_is_applied_again_by_an_admin_alone(site: ConsoleSite) -> None:
    site.hooks.rows.append(replace(HOOK, row_id=6, status="PROCESSED", payment_id=PAYMENT))
    await site.sign_in("support")
    parked = await site.get("/console/webhooks")
    assert "/console/webhooks/5" in parked.text
    assert "/console/webhooks/6" not in parked.text
    assert "/console/webhooks/6" in (await site.get("/console/webhooks?status=all")).text
    assert "Apply again" not in (await site.get("/console/webhooks/5")).text
    fields = {"form_token": parked.form_token, "id": "5"}
    assert (await site.post("/console/webhooks/replay", fields)).status == 403
    await site.sign_in("admin")
    fields["form_token"] = (await site.get("/console/webhooks/5")).form_token
    answer = await site.post("/console/webhooks/replay", fields)
    assert (answer.status, answer.headers["Location"]) == (303, "/console/webhooks/5?done=replay")
    assert site.hooks.replayed == [5]
    told = site.audited[-1]
    assert (told.action, told.result, told.actor, told.detail) == ("webhook.replay", "OK", OPERATOR, "webhook 5")
    for name in ("7", "x", "-1", "٣", "9" * 30):
        assert (await site.get(f"/console/webhooks/{name}")).status == 404
        assert (await site.post("/console/webhooks/replay", fields | {"id": name})).status == 404


# --- limits ----------------------------------------------------------------------------------------------------


async def test_limits_are_as_for_rest_and_pages_may_be_more() -> None:
    async with console_site(rate_limit_max=5, rate_limit_window_s=900.0) as site:
        await site.charged()
        await site.sign_in("admin")
        page = await site.get(PAGE)
        fields = {"form_token": page.form_token, "once": "o", "amount": "1", "reason": "because"}
        statuses = [(await site.post(f"{PAGE}/refund", fields)).status for _ in range(4)]
        assert statuses == [303, 303, 303, 429], "three fifths of it move money"
        pages = [(await site.get("/console")).status for _ in range(46)]
        assert pages == [200] * 45 + [429]
        assert site.audited[-1].result == "RATE_LIMITED"
        refused = await site.get("/console")
        assert int(refused.headers["Retry-After"]) > 0
        assert "Too often" in refused.text
        # Files are no pages, and signing in is counted by address.
        assert (await site.client.get("/console/assets/console.css")).status == 200
        answers = [(await site.post("/console/sign-in", {"token": "wrong"})).status for _ in range(6)]
        assert answers[-1] == 429
