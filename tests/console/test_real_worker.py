"""The console of a real worker, on PostgreSQL and a broker, spoken to as a browser without JavaScript does."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from rigs.console_site import FORM_TOKEN, ONCE
from rigs.console_worker import ConsoleWorker, console_worker
from rigs.worker import token_of

pytestmark = pytest.mark.long

LETTER = re.compile(r'href="(/console/dead-letters/letter\?id=[^"]+)"')
HIDDEN_ID = re.compile(r'name="id" value="([^"]+)"')


class Browser:
    def __init__(self, opened: ConsoleWorker, session: aiohttp.ClientSession) -> None:
        self._url = opened.worker.url
        self._session = session

    async def get(self, path: str) -> tuple[int, str, str]:
        """Status, text, and where it ended."""
        async with self._session.get(self._url + path) as response:
            return response.status, await response.text(), response.url.path_qs

    async def send(self, page: str, action: str, fields: Mapping[str, str]) -> tuple[int, str, str]:
        """A form of that page."""
        _, text, _ = await self.get(page)
        token, once, name = (found.search(text) for found in (FORM_TOKEN, ONCE, HIDDEN_ID))
        hidden = {"form_token": token[1] if token else ""} | ({"once": once[1]} if once else {})
        hidden |= {"id": name[1]} if name else {}
        headers = {"Sec-Fetch-Site": "same-origin"}
        async with self._session.post(self._url + action, data={**hidden, **fields}, headers=headers) as response:
            return response.status, await response.text(), response.url.path_qs


def audited(opened: ConsoleWorker, action: str) -> list[dict[str, str]]:
    rows = opened.site.rows(f"select entry from payment_service.audit_log where entry ->> 'action' = '{action}'")
    return [row if isinstance(row, dict) else orjson.loads(row) for (row,) in rows]


async def test_an_operator_s_night(tmp_path: Path, tansu_broker: str, database_url: str) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        console_worker(tmp_path, tansu_broker, database_url) as opened,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        browser = Browser(opened, session)
        sent = {"token": token_of("eve", ("admin",)), "next": "/console/dead-letters"}
        status, text, where = await browser.send("/console/sign-in", "/console/sign-in", sent)
        assert (status, where) == (200, "/console/dead-letters")
        await a_letter_is_sent_again(browser, opened, text)
        await a_payment_is_found_and_refunded(browser, opened)
        await an_unknown_one_is_decided(browser, opened)
        await a_webhook_is_applied_again(browser, opened)
        await the_live_numbers_come_and_do_not_hold_up_the_end(opened, session)


async def a_letter_is_sent_again(browser: Browser, opened: ConsoleWorker, listed: str) -> None:
    letter = LETTER.search(listed)
    assert letter is not None, listed
    _, page, _ = await browser.get(letter[1])
    assert "o-bad" in page
    assert "ann@shop.test" not in page
    status, text, _ = await browser.send(letter[1], "/console/dead-letters/replay", {})
    assert (status, "Sent to where it came from" in text) == (200, True), text
    status, text, _ = await browser.send(letter[1], "/console/dead-letters/replay", {})
    assert (status, "had been sent before" in text) == (409, True), text
    async with asyncio.timeout(30):  # it fails again, and is a letter again, of the first
        while len(LETTER.findall((await browser.get("/console/dead-letters"))[1])) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    done = audited(opened, "dead_letter.replay")
    assert {it["actor"] for it in done} == {"operator:eve"}
    assert sorted(it["result"] for it in done if it.get("requestId") is None) == ["ALREADY", "OK"]


async def a_payment_is_found_and_refunded(browser: Browser, opened: ConsoleWorker) -> None:
    paid, page = opened.id("paid"), f"/console/payments/{opened.id('paid')}"
    ((charge,),) = opened.site.rows(f"select provider_id from payment_service.transactions where payment_id = '{paid}'")
    for text in (paid, "paid", charge):
        assert (await browser.get(f"/console?q={text}"))[2] == page
    status, text, where = await browser.send(page, f"{page}/refund", {"amount": "9.99", "reason": "one mug broke"})
    assert (status, where) == (200, f"{page}?done=refund")
    assert "90.00 USD" in text
    ((amount, reason, state),) = opened.site.rows(
        f"select amount_minor, reason, status from payment_service.refunds where payment_id = '{paid}'"
    )
    assert (amount, reason, state) == (999, "one mug broke", "COMPLETED")

    def by_eve() -> list[dict[str, str]]:
        return [it for it in audited(opened, "payment.refund") if it["actor"] == "operator:eve"]

    await opened.site.until(lambda: bool(by_eve()), "it is told to the audit log")
    told = by_eve()
    assert [(it["result"], it["detail"], it["paymentId"]) for it in told] == [("OK", "one mug broke", paid)]


async def an_unknown_one_is_decided(browser: Browser, opened: ConsoleWorker) -> None:
    page = f"/console/payments/{opened.id('unknown')}"
    assert "may or may not have done it" in (await browser.get(page))[1]
    fields = {"call": "attempt:1", "verdict": "approved", "provider_id": "ch_1", "reason": "seen", "looked": "yes"}
    status, text, where = await browser.send(page, f"{page}/resolve", fields)
    assert (status, where) == (200, f"{page}?done=resolve")
    assert "Decided by hand" in text
    assert "The money is taken." in text
    held = f"/console/payments/{opened.id('held')}"
    status, text, _ = await browser.send(held, f"{held}/cancel", {"reason": "the shopper called"})
    assert (status, "It will not be charged." in text) == (200, True)


async def a_webhook_is_applied_again(browser: Browser, opened: ConsoleWorker) -> None:
    assert "PARKED" in str(opened.site.rows("select status from payment_service.payment_webhooks"))
    ((row_id,),) = opened.site.rows("select id from payment_service.payment_webhooks")
    status, text, where = await browser.send(f"/console/webhooks/{row_id}", "/console/webhooks/replay", {})
    assert (status, where) == (200, f"/console/webhooks/{row_id}?done=replay"), text
    await opened.site.until(lambda: bool(audited(opened, "webhook.replay")), "it is told to the audit log")
    assert audited(opened, "webhook.replay")[0]["detail"] == f"webhook {row_id}"


async def the_live_numbers_come_and_do_not_hold_up_the_end(
    opened: ConsoleWorker, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{opened.worker.url}/console/live/events") as stream:
        point: dict[str, Any] = {}
        async with asyncio.timeout(30):
            while "orders" not in point.get("lag", {}):
                if await stream.content.readline() == b"event: point\n":
                    point = orjson.loads((await stream.content.readline()).removeprefix(b"data: "))
        assert "MOCK" in point["providers"]
        code, seconds = await opened.worker.stop()
    assert code == 0
    assert seconds < 15, "a browser that watches does not hold up the end"
