"""Outcomes reach the order service: whatever happens to it, to us and on the way, and the newest word last."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rigs.order_service import OrderService
from rigs.teller import Teller, telling
from servers.postgres import execute
from servers.waiting import until

from payment_service.adapters import orders_api
from payment_service.core.use_cases import tell_orders as module

ROWS = "select order_id, word, version, problem from payment_service.order_updates order by order_id"


@pytest.fixture
async def service() -> AsyncIterator[OrderService]:
    async with OrderService() as service:
        yield service


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    monkeypatch.setattr(module, "PAUSE_S_MIN", 0.1)
    monkeypatch.setattr(module, "PAUSE_S_MAX", 0.2)
    monkeypatch.setattr(module, "REPEAT_S", 0.5)
    monkeypatch.setattr(module, "LEASE_S", 1.0)
    monkeypatch.setattr(orders_api, "BREAKER", orders_api.BreakerRule(5, 0.1, 0.2))


def rows(url: str) -> list[tuple[Any, ...]]:
    return execute(url, ROWS)


def nothing_waits(url: str) -> bool:
    return rows(url) == []


async def test_nobody_else_pays_for_it(database_url: str, service: OrderService) -> None:
    teller = Teller(database_url, service, tells_orders=False)
    await teller.made("o1")
    await teller.paid("o1")
    assert nothing_waits(database_url)
    await teller.close()


async def test_a_word_is_committed_with_its_change_and_the_newest_stays(
    database_url: str, service: OrderService
) -> None:
    async with telling(database_url, service, running=False) as teller:
        await teller.made("o1")
        assert nothing_waits(database_url), "nothing has become of it"
        await teller.declined("o1")
        assert [row[1:] for row in rows(database_url)] == [("failed", 3, "")]
        await teller.paid("o1", 2)
        await teller.made("o2")
        await teller.cancelled("o2")
        assert [row[:3] for row in rows(database_url)] == [("o1", "paid", 5), ("o2", "failed", 2)]


async def test_words_are_told_in_order_as_they_change(database_url: str, service: OrderService) -> None:
    async with telling(database_url, service) as teller:
        await teller.made("o1")
        await teller.declined("o1")
        await until(lambda: service.words("o1") == ["failed"] and nothing_waits(database_url), "failed is told")
        await teller.paid("o1", 2)
        await until(lambda: nothing_waits(database_url), "everything is told")
        assert service.words("o1")[-1] == "paid"
        assert service.told[0].reason == "FAILED", "without a code of the provider, the payment's status"
    assert {path for _, path, _ in service.requests} == {"/api/v1/orders/o1/payment-status"}


@pytest.mark.parametrize("mood", ["error", "error_after", "cut", "unavailable", "busy", "redirect", "denies"])
async def test_what_was_not_heard_is_told_until_it_is(database_url: str, service: OrderService, mood: str) -> None:
    service.mood = mood
    async with telling(database_url, service) as teller:
        await teller.made("o1")
        await teller.paid("o1")
        await until(lambda: len(service.requests) >= 4, "it is tried again")
        assert rows(database_url)[0][1] == "paid"
        service.mood = "fine"
        await until(lambda: nothing_waits(database_url), "it is told")
        assert service.words("o1")[-1] == "paid"


async def test_a_service_that_is_away_hears_the_newest_word_when_it_is_back(
    database_url: str, service: OrderService
) -> None:
    await service.go()
    orders = [f"o{number}" for number in range(60)]
    async with telling(database_url, service) as teller:
        for order_id in orders:
            await teller.made(order_id)
            await teller.declined(order_id)
            await teller.paid(order_id, 2)
        assert len(rows(database_url)) == len(orders)
        await service.come()
        await until(lambda: nothing_waits(database_url), "everything is told")
    assert {order_id: service.words(order_id)[-1] for order_id in orders} == dict.fromkeys(orders, "paid")
    assert len(service.told) <= 2 * len(orders), "older words are not told one after another"


async def test_a_word_it_does_not_want_is_kept_with_an_alarm_and_a_newer_one_goes_out_at_once(
    database_url: str, service: OrderService
) -> None:
    service.mood = "refuse"
    async with telling(database_url, service) as teller:
        await teller.made("o1")
        await teller.declined("o1")
        await until(lambda: bool(teller.alarms), "somebody is told")
        await until(lambda: rows(database_url)[0][3] == "REFUSED:HTTP 422", "it is kept")
        before = len(service.requests)
        await asyncio.sleep(0.5)
        assert len(service.requests) == before, "it is not offered again and again"
        assert await teller.words.waiting() == {"REFUSED": (1, pytest.approx(0.5, abs=5))}
        service.mood = "fine"
        await teller.paid("o1", 2)
        await until(lambda: nothing_waits(database_url), "the newer word is told")
    assert service.words("o1")[-1] == "paid"


async def test_a_newer_word_waits_for_the_older_one_on_its_way(database_url: str, service: OrderService) -> None:
    service.mood, service.late_s = "late", 0.4
    async with telling(database_url, service) as one, telling(database_url, service) as two:
        await one.made("o1")
        await one.declined("o1")
        await until(lambda: len(service.requests) == 1, "failed is on its way")
        await two.paid("o1", 2)
        await until(lambda: nothing_waits(database_url), "both are told")
    assert service.words("o1") == ["failed", "paid"]
    assert service.at_once_max == 1


async def test_an_older_word_that_arrives_behind_a_newer_one_does_not_stay(
    database_url: str, service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders_api, "TELL_S", 0.2)
    monkeypatch.setattr(module, "REPEAT_S", 1.5)
    service.mood, service.late_s = "late", 1.2
    async with telling(database_url, service) as teller:
        await teller.made("o1")
        await teller.declined("o1")
        await until(lambda: rows(database_url)[0][3] == "UNREACHABLE", "failed had no answer")
        service.mood = "fine"
        await teller.paid("o1", 2)
        await until(lambda: nothing_waits(database_url), "everything is told")
    words = service.words("o1")
    assert "failed" in words[1:], f"the older word came late: {words}"
    assert words[-1] == "paid"


async def test_a_worker_that_dies_after_telling_leaves_it_to_another(database_url: str, service: OrderService) -> None:
    async with telling(database_url, service) as one, telling(database_url, service, running=False) as two:
        settled = asyncio.Event()

        async def dies(*args: object, **more: object) -> None:
            settled.set()
            await asyncio.Event().wait()

        one.words.told = dies  # type: ignore[method-assign]
        await one.made("o1")
        await one.declined("o1")
        await settled.wait()
        await one.die()
        assert service.words("o1") == ["failed"]
        await two.paid("o1", 2)
        two.start()
        await until(lambda: nothing_waits(database_url), "it is told by the other")
    words = service.words("o1")
    assert words[0] == "failed"
    assert words[1:] == ["paid", "paid"], "once more, for the other's request might still have been on its way"


async def test_a_worker_that_stood_still_leaves_its_claim_alone(
    database_url: str, service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with telling(database_url, service, running=False) as teller:
        await teller.made("o1")
        await teller.declined("o1")
        (claimed,) = await teller.words.claim(10, 30.0)
        await teller.tell._tell(claimed, teller.tell.clock.monotonic_s() - 0.001)
        assert service.requests == []
        await teller.tell._tell(claimed, teller.tell.clock.monotonic_s() + 10)
        assert service.words("o1") == ["failed"]
        assert nothing_waits(database_url)


async def test_what_an_older_claim_says_counts_no_more(database_url: str, service: OrderService) -> None:
    async with telling(database_url, service, running=False) as teller:
        await teller.made("o1")
        await teller.declined("o1")
        (old,) = await teller.words.claim(10, 0.0)
        (new,) = await teller.words.claim(10, 30.0)
        assert (old.tries, new.tries) == (1, 2)
        await teller.words.told(old, 0.0)
        await teller.words.again(old, 0.0, "UNREACHABLE", late=False)
        assert list(await teller.words.claim(10, 1.0)) == []
        await teller.words.told(new, 0.0)  # stays once: the old request may be on its way
        (repeat,) = await teller.words.claim(10, 30.0)
        await teller.words.told(repeat, 0.0)
        assert nothing_waits(database_url)


async def test_two_workers_tell_every_word_and_no_order_twice_at_once(database_url: str, service: OrderService) -> None:
    orders = [f"o{number}" for number in range(60)]
    async with telling(database_url, service) as one, telling(database_url, service) as two:
        await asyncio.gather(*(teller.made(order) for order, teller in zip(orders, [one, two] * 30, strict=True)))
        await asyncio.gather(*(teller.paid(order) for order, teller in zip(orders, [two, one] * 30, strict=True)))
        await until(lambda: nothing_waits(database_url), "everything is told", 150.0)
    # At least once: an answer that a slow machine missed is asked for again.
    assert {(told.order_id, told.word, told.reason) for told in service.told} == {
        (order, "paid", "SUCCEEDED") for order in orders
    }
    assert service.at_once_max == 1
