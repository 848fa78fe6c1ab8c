"""A whole worker: what is asked of it is in the audit log, its chains are anchored, and what it could not take is sent
again beside it."""

import json
from contextlib import aclosing
from pathlib import Path

import pytest
from rigs.counted import CountedMetrics
from rigs.outbox_site import Site
from rigs.worker import ENCRYPTION_KEY, Installation, Message
from servers.waiting import until

from payment_service.adapters.audit_anchors import Anchored, read_anchors
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letter_desk import StoredDeadLetters
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS, DEAD_LETTERS
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.dead_letters import LetterFilter, Sent

pytestmark = pytest.mark.long

KEY = ENCRYPTION_KEY.encode()
ORDER = {"type": "order.created", "orderId": "o-9", "userId": "ann", "totalAmount": 5, "currency": "USD"}
BROKERS = ["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)]


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


async def test_everything_asked_of_a_worker_is_audited_and_anchored(
    broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, broker, database_url) as site:
        await site.make_order_topic()
        worker = await site.started()
        await worker.streaming()
        made = await worker.call("POST", "/api/v1/payments", {"orderId": "o-1", "amount": 5}, user="ann")
        path = f"/api/v1/payments/{made.data['id']}"
        await worker.call("POST", f"{path}/process", {"paymentMethodId": "tok_visa"}, user="ann")
        await worker.call("GET", path, user="eve")
        await worker.call("GET", path)
        await site.produce(Message(b"{junk", 0))
        refused = "select count(*) from payment_service.audit_log where entry ->> 'action' = 'stream.refused'"
        await site.until(lambda: site.rows(refused) == [(1,)], "the junk is in the audit log")
        code, _ = await worker.stop()
        assert code == 0
        told = site.rows(
            "select entry ->> 'action', entry ->> 'result', entry ->> 'actor' from payment_service.audit_log "
            "order by number"
        )
        assert sorted(told) == sorted([
            ("chain.opened", "OK", "system"), ("payment.create", "OK", "user:ann"),
            ("payment.process", "OK", "user:ann"), ("payment.read", "PAYMENT_NOT_FOUND", "user:eve"),
            ("payment.read", "UNAUTHORIZED", "anonymous"), ("stream.refused", "MALFORMED_JSON", "system"),
            ("chain.closed", "OK", "system"),
        ])  # fmt: skip
        database, cipher = Database(database_url), AesGcmCipher(KEY)
        anchored = await read_anchors(KafkaClient(broker), site.prefix + AUDIT_ANCHORS, cipher, 1.0)
        versions = [(version,) for version, _ in anchored.payments.values()]
        assert versions == site.rows("select version from payment_service.payments")
        assert [count for count, _ in anchored.chains.values()] == [6]

        async def again() -> Anchored:
            return anchored

        verifier = AuditVerifier(database, (chain_key(KEY),), again)
        await verifier.read_anchors()
        parts = [part async for part in verifier.verify(None)]
        assert [problem for part in parts for problem in part.problems] == []
        await database.close()


async def test_a_letter_sent_again_twice_makes_one_payment(broker: str, database_url: str, tmp_path: Path) -> None:
    """As if it had come before the service could read it."""
    async with Installation(tmp_path, broker, database_url) as site:
        await site.make_order_topic()
        worker = await site.started()
        await worker.streaming()
        database, clock = Database(database_url), SystemClock()
        letters = Site(broker, database_url, site.prefix)
        async with letters.publisher() as (publisher, _):
            await until(lambda: publisher.connected, "the broker is there")
            box = DeadLetterBox(publisher, database, AesGcmCipher(KEY))
            await box.keep(site.orders, 0, 7, b"k", json.dumps(ORDER).encode(), (), "VALIDATION_ERROR", "why")
        audit = PostgresAuditLog(database, chain_key(KEY), "cli:test", clock, CountedMetrics())
        desk = StoredDeadLetters(
            KafkaClient(broker), "", site.prefix + DEAD_LETTERS, site.prefix, database, AesGcmCipher(KEY), audit, clock,
            CountedMetrics(), 1.0,
        )  # fmt: skip
        for again in (False, True):
            chosen = await desk.choose(LetterFilter())
            async with aclosing(desk.replay(list(chosen), "operator:ann", again=again)) as batches:
                assert [one.outcome async for batch in batches for one in batch] == [Sent.SENT]
        await site.until_told(1)
        await site.produce(Message(json.dumps(ORDER | {"orderId": "o-10"}).encode(), 0))
        await site.until_told(2)
        assert site.rows("select order_id from payment_service.payments order by 1") == [("o-10",), ("o-9",)]
        assert (await desk.find(LetterFilter(), 10)).total == 1
        assert site.rows("select max(version) from payment_service.payments") == [(1,)]
        await audit.close()
        await database.close()
        letters.close()
