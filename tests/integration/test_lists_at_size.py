"""Lists read an index, whatever is asked: with many payments a list that reads them all takes seconds."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from rigs.changes import change_of, create
from rigs.stores import KEY, SHARDS
from servers.postgres import execute as sql

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import STATEMENT_S, Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import PaymentFilter
from payment_service.core.webhooks import WebhookStatus

PAYMENTS = 30_000
COLUMNS = (
    "user_id, provider, currency, authorized, captured, refund_pending, refunded, disputed, needs_review, version,"
    " sequence, state, chain_head, updated_at"
)


class ExplainedDatabase(Database):
    """Keeps the plan of everything that is asked."""

    plans: list[str]

    async def fetch(
        self, query: str, parameters: Sequence[Any] = (), timeout_s: float = STATEMENT_S, *, hot: bool = False
    ) -> list[Any]:
        rows = await super().fetch(f"explain {query}", parameters, timeout_s)
        self.plans.append("\n".join(line for (line,) in rows))
        return await super().fetch(query, parameters, timeout_s, hot=hot)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[ExplainedDatabase]:
    """A year of payments of one kind, but for one in a thousand that was declined; some webhooks."""
    opened = ExplainedDatabase(database_url)
    opened.plans = []
    await _store(opened).commit(change_of(create("story")))
    sql(
        database_url,
        f"insert into payment_service.payments (id, order_id, status, amount_minor, created_at, {COLUMNS})"
        " select 'pay_' || md5(n::text), 'o' || n, case when n % 1000 = 0 then 'FAILED' else 'SUCCEEDED' end, n,"
        f" now() - n * interval '17 minutes', {COLUMNS} from payment_service.payments, generate_series(1, {PAYMENTS}) n"
        f" where id = '{payment_id_of('story')}'",
    )
    sql(
        database_url,
        "insert into payment_service.payment_webhooks (provider, event_id, type, status, body, created_at, due_at)"
        f" select 'MOCK', n::text, 't', 'PROCESSED', '', now(), null from generate_series(1, {PAYMENTS}) n",
    )
    sql(database_url, "vacuum (analyze)")
    opened.plans.clear()
    yield opened
    await opened.close()


def _store(database: Database) -> PostgresPaymentStore:
    return PostgresPaymentStore(database, AesGcmCipher(KEY), chain_key(KEY), SHARDS, lambda rows: None)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (PaymentFilter(), "payments_shown_by_time"),
        (PaymentFilter(offset=5000), "payments_shown_by_time"),
        (PaymentFilter(user_id="nobody"), "payments_shown_by_user"),
        (PaymentFilter(status="FAILED"), "payments_by_status"),
        (PaymentFilter(status="UNKNOWN", offset=5000), "payments_by_status"),
        (PaymentFilter(sort_by="status"), "payments_by_status"),
        (PaymentFilter(sort_by="status", descending=False), "payments_by_status"),
        (PaymentFilter(provider="PAYPAL"), "payments_by_provider"),
        (PaymentFilter(sort_by="amount"), "payments_by_amount"),
        (PaymentFilter(sort_by="amount", descending=False, offset=5000), "payments_by_amount"),
        (PaymentFilter(amount_min=10.0, amount_max=10.1), "payments_by_amount"),
        (PaymentFilter(amount_min=1_000_000.0), "payments_by_amount"),
    ],
    ids=str,
)
async def test_a_page_is_read_from_its_index(database: ExplainedDatabase, query: PaymentFilter, index: str) -> None:
    await _store(database).find(query)
    page, _ = database.plans
    assert index in page and "Seq Scan" not in page, page


async def test_what_is_skipped_is_not_fetched(database: ExplainedDatabase) -> None:
    """Of a page far in, only the rows of the page itself."""
    for query in (PaymentFilter(offset=5000), PaymentFilter(offset=5000, sort_by="amount"), PaymentFilter(status="X")):
        database.plans.clear()
        await _store(database).find(query)
        assert "Index Only Scan" in database.plans[0], database.plans[0]


async def test_what_is_not_there_is_not_looked_for_everywhere(database: ExplainedDatabase) -> None:
    for status in set(WebhookStatus) - {WebhookStatus.PROCESSED}:
        values = (status.value, status.value, None, None, None, None, 100)
        await database.fetch(QUERIES["list_webhooks"], values)
        assert "Seq Scan" not in database.plans[-1] and "Filter" not in database.plans[-1], database.plans[-1]


async def test_the_audit_log_of_a_payment_is_not_looked_for_in_all_of_it(
    database: ExplainedDatabase, database_url: str
) -> None:
    entry = """'{"at":"2026-' || n || '","paymentId":"pay_' || n || '"}'"""
    sql(
        database_url,
        f"insert into payment_service.audit_log (chain, number, entry, hash) select 'c', n, ({entry})::json, ''"
        f" from generate_series(1, {PAYMENTS}) n",
    )
    sql(database_url, "vacuum (analyze) payment_service.audit_log")
    rows = await database.fetch(QUERIES["audit_of_payment"], ("pay_77", 30))
    assert [row[1] for row in rows] == [77]
    assert "audit_log_by_payment" in database.plans[-1] and "audit_log_by_time" not in database.plans[-1]


async def test_new_events_in_old_pages_do_not_make_an_hour_a_year(
    database: ExplainedDatabase, database_url: str
) -> None:
    """What a vacuum finds free among old events is filled with new ones."""
    sql(
        database_url,
        "insert into payment_service.payment_events (payment_id, version, sequence, type, at, data, hash)"
        " select 'p' || n, 1, 1, 't', case when n % 500 = 0 then now() else now() - n * interval '5 minutes' end,"
        " decode(repeat('ab', 100), 'hex'), '' from generate_series(1, 100000) n",
    )
    sql(database_url, "vacuum (analyze) payment_service.payment_events")
    ((pages,),) = sql(database_url, "select pg_relation_size('payment_service.payment_events') / 8192")
    hour = QUERIES["published_between"].replace("%s", "{}").format(
        "extract(epoch from now() - interval '100 days') * 1000",
        "extract(epoch from now() - interval '100 days' + interval '1 hour') * 1000", 5000,
    )  # fmt: skip
    plan = "\n".join(str(line) for (line,) in sql(database_url, f"explain (analyze, buffers off) {hour}"))
    read = re.search(r"lossy=(\d+)", plan)
    assert read and int(read.group(1)) <= 256 < int(str(pages)) // 4, (pages, plan)
