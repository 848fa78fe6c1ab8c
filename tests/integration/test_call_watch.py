"""The gauges of open calls and of the books, and the brake on orders, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from rigs.changes import AT_MS, answer, change_of, charge, create
from rigs.store_worker import Worker, working
from servers.postgres import execute as sql

from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.postgres import call_watch
from payment_service.adapters.postgres.call_watch import CallWatch
from payment_service.core import commands as c
from payment_service.core.ids import payment_id_of
from payment_service.core.terms import Kind, Source, Verdict


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    async with working(database_url) as worker:
        yield worker


def watch_of(worker: Worker) -> tuple[CallWatch, PrometheusMetrics, list[bool]]:
    metrics, held = PrometheusMetrics(), []  # type: ignore[var-annotated]
    return CallWatch(worker.database, metrics, held.append), metrics, held


def gauge(metrics: PrometheusMetrics, name: str, **labels: str) -> float | None:
    return metrics.value(name, **labels)


async def does(worker: Worker, order: str, *commands: c.Command) -> str:
    payment_id = payment_id_of(order)
    for command in commands:
        await worker.store.commit(change_of(command, await worker.store.load(payment_id)))
    return payment_id


async def paid(worker: Worker, order: str, **more: Any) -> str:
    pid = payment_id_of(order)
    said = c.RecordAnswer(pid, f"{pid}:yes", AT_MS, Kind.CHARGE, 1, Verdict.APPROVED, Source.LIVE, **more)
    return await does(worker, order, create(order), charge(pid, f"{pid}:charge"), said)


async def test_open_calls_by_age_reviews_and_what_is_overdue(worker: Worker, database_url: str) -> None:
    for order in ("o1", "o2"):
        pid = payment_id_of(order)
        await does(worker, order, create(order), charge(pid, f"{pid}:charge"))
    await does(worker, "o1", answer(payment_id_of("o1"), Verdict.UNKNOWN))
    await does(worker, "o1", c.FlagReview(payment_id_of("o1"), "flag", AT_MS, "operator:eve", "ODD"))
    sql(database_url, "update payment_service.transactions set created_at = now() - interval '2 hours', "
        "due_at = now() - interval '90 seconds' where status = 'UNKNOWN'")  # fmt: skip
    sql(database_url, "update payment_service.transactions set created_at = now() where status = 'PENDING'")
    watch, metrics, _ = watch_of(worker)
    await watch.look()
    assert gauge(metrics, "calls_open", status="UNKNOWN", age="1d") == 1
    assert gauge(metrics, "calls_open", status="PENDING", age="1m") == 1
    assert gauge(metrics, "calls_open", status="PENDING", age="1d") == 0
    assert gauge(metrics, "payments_to_review") == 1
    assert 89 < (gauge(metrics, "calls_oldest_due_s") or 0) < 120


async def test_the_books_agree_also_where_the_provider_moved_something_else(worker: Worker) -> None:
    await paid(worker, "o1")
    pid = await paid(worker, "o2", amount_minor=700)
    await does(
        worker, "o2",
        c.RecordExternalRefund(pid, "beside", AT_MS, "re_1", 100, Verdict.APPROVED, Source.WEBHOOK),
        c.RequestRefund(pid, "refund", AT_MS, "service", None, 100),
        c.RecordAnswer(pid, "same", AT_MS, Kind.REFUND, 2, Verdict.APPROVED, Source.LIVE, "re_1"),
    )  # fmt: skip
    loaded = await worker.store.load(pid)
    assert loaded.payment is not None and (loaded.payment.captured, loaded.payment.refunded) == (700, 100)
    watch, metrics, _ = watch_of(worker)
    await watch.look()
    assert gauge(metrics, "money_difference_minor", currency="USD") == 0


async def test_a_row_that_was_lost_is_found_by_the_patrol_and_forgotten_when_it_is_mended(
    worker: Worker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_watch, "PATROL_MAX", 1)  # a page of one: it takes three looks to come round
    for order in ("o1", "o2", "o3"):
        await paid(worker, order)
    last = max(payment_id_of(order) for order in ("o1", "o2", "o3"))
    sql(database_url, "update payment_service.transactions set updated_at = now() - interval '1 day'")
    sql(database_url, f"update payment_service.transactions set moved_minor = 1 where payment_id = '{last}'")
    watch, metrics, _ = watch_of(worker)
    await watch.look()
    assert gauge(metrics, "money_difference_minor", currency="USD") == 0
    await watch.look()
    await watch.look()
    assert gauge(metrics, "money_difference_minor", currency="USD") == 999
    await watch.look()
    assert gauge(metrics, "payments_that_differ") == 1, "it stays, whatever the patrol looks at"
    sql(database_url, f"update payment_service.transactions set moved_minor = null where payment_id = '{last}'")
    await watch.look()
    assert gauge(metrics, "money_difference_minor", currency="USD") == 0


async def test_what_changed_is_looked_at_without_the_patrol(
    worker: Worker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for order in ("o1", "o2"):
        await paid(worker, order)
    watch, metrics, _ = watch_of(worker)
    monkeypatch.setattr(call_watch, "PATROL_MAX", 1)
    watch._after = "pay_z"  # the patrol finds nothing there
    sql(database_url, "update payment_service.transactions set moved_minor = 0, updated_at = now() - interval '9 s'")
    await watch.look()
    assert gauge(metrics, "money_difference_minor", currency="USD") == 2000


async def test_too_many_scheduled_calls_hold_the_orders_until_half_are_gone(
    worker: Worker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_watch, "SCHEDULED_MAX", 4)
    watch, metrics, held = watch_of(worker)
    for number in range(5):
        await does(worker, f"o{number}", create(f"o{number}", charge=True))
    await watch.brake()
    assert held[-1] and gauge(metrics, "calls_scheduled_due") == 5 and gauge(metrics, "orders_held") == 1
    settle = "update payment_service.transactions set due_at = null where id in (select id from " \
        "payment_service.transactions where due_at is not null limit {})"  # fmt: skip
    sql(database_url, settle.format(2))
    await watch.brake()
    assert held[-1], "three are more than half"
    sql(database_url, settle.format(1))
    await watch.brake()
    assert not held[-1] and gauge(metrics, "orders_held") == 0
