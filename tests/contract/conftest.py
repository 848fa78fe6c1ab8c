"""What the contract suites run over."""

from collections.abc import AsyncIterator

import pytest
from rigs.stores import KEY, SHARDS, StoreRig, memory_rig
from servers.postgres import execute

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.ports import OutboxRow


@pytest.fixture(params=["memory", "postgres"])
async def store_rig(request: pytest.FixtureRequest) -> AsyncIterator[StoreRig]:
    if request.param == "memory":
        yield memory_rig()
        return
    url = request.getfixturevalue("database_url")
    database, cipher = Database(url), AesGcmCipher(KEY)
    rows: list[tuple[OutboxRow, bool]] = []
    store = PostgresPaymentStore(database, cipher, chain_key(KEY), SHARDS, rows.extend)
    yield StoreRig(
        store,
        PostgresCallQueue(database, cipher),
        lambda: execute(url, "delete from payment_service.outbox") and None,
        rows,
    )
    await store.close()
    await database.close()
