"""A change of the encryption key on a real PostgreSQL, beside workers that go on."""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from rigs.changes import answer, change_of, charge, create
from rigs.stores import SHARDS
from servers.postgres import execute

from payment_service.adapters.audit_anchors import Anchored
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.dead_letters import sealing_place
from payment_service.adapters.postgres import resealing
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.idempotency import PostgresKeys
from payment_service.adapters.postgres.payment_methods import PostgresMethods
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.resealing import COLUMNS, Resealing
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.idempotency import request_key
from payment_service.core.ids import payment_id_of
from payment_service.core.key_rotation import Resealed, SealedRecords
from payment_service.core.payment_method import Method, MethodSecrets, MethodStatus
from payment_service.core.ports import Committed, Secrets
from payment_service.core.terms import Verdict
from payment_service.core.webhooks import ReceivedWebhook

OLD, NEW = b"o" * 32, b"n" * 32
BEFORE, DURING, AFTER = AesGcmCipher(OLD), AesGcmCipher(NEW, [OLD]), AesGcmCipher(NEW)
AT_MS = 1_764_000_000_000
KEY = request_key("user:ann", "POST", "/p", "k", b"{}")
NAMES = [column.name for column in COLUMNS]


async def nothing_in_topics() -> Sequence[SealedRecords]:
    return ()


class Site:
    """Every adapter that seals, with one cipher."""

    def __init__(self, database: Database, cipher: AesGcmCipher, key: bytes = OLD) -> None:
        self.database, self.cipher = database, cipher
        self.store = PostgresPaymentStore(database, cipher, chain_key(key), SHARDS, lambda rows: None)
        self.calls = PostgresCallQueue(database, cipher)
        self.webhooks = PostgresWebhooks(database, cipher)
        self.keys = PostgresKeys(database, cipher)
        self.methods = PostgresMethods(database, cipher)

    async def commit(self, order: str, token: str = "tok_1", **more: Any) -> str:
        change = change_of(create(order, **more), secrets=Secrets(method_token=token), token=token)
        assert await self.store.commit(change) is Committed.COMMITTED
        return payment_id_of(order)

    async def go_on(self, *commands: Any, secrets: Secrets | None = None) -> None:
        for command in commands:
            loaded = await self.store.load(command.payment_id)
            assert await self.store.commit(change_of(command, loaded, secrets=secrets)) is Committed.COMMITTED

    async def fill(self) -> None:
        """Something in every sealed column."""
        await self.commit("o1", charge=True)
        await self.webhooks.keep(ReceivedWebhook("STRIPE", "evt_1", "t", AT_MS, AT_MS, None, "pi_1", b"{body}"))
        await self.keys.keep_unbound(KEY, "refused", "pay_1", b"{answer}")
        method = Method(
            "pmt_1", "ann", "STRIPE", "card", MethodStatus.PENDING, AT_MS, secrets=MethodSecrets(given="tok_2")
        )
        await self.methods.settle(
            replace(
                await self.methods.begin(method, 20, 60.0), status=MethodStatus.ACTIVE,
                secrets=MethodSecrets(token="pm_2", customer="cus_2"),
            )
        )  # fmt: skip
        await self.methods.keep_customer("ann", "STRIPE", "cus_2")
        letter = self.cipher.seal(b"x" * 2_000_000, sealing_place("orders", 1, 2))
        await self.letter(letter, 2, sealed=True)
        await self.letter(b"plain", 3, sealed=False)

    async def letter(self, value: bytes, offset: int, *, sealed: bool) -> None:
        await self.database.fetch(
            QUERIES["keep_dead_letter"], ("orders", 1, offset, b"k", value, "[]", "R", "e", sealed)
        )

    async def read(self) -> list[Any]:
        """What the service reads of it."""
        (call,) = await self.calls.claim("w", 10, 0.0)
        (webhook,) = await self.webhooks.claim(10, 0.0)
        bound, usable = await self.keys.find(KEY), await self.methods.usable("ann", "pmt_1")
        rows = await self.database.fetch("select value from payment_service.dead_letters where sealed")
        assert bound is not None and usable is not None
        return [
            (await self.store.load(payment_id_of("o1"))).secrets.method_token, call.call.method_token,
            webhook.webhook.body, bound.answer, usable.token, await self.methods.customer_of("ann", "STRIPE"),
            len(self.cipher.unseal(bytes(rows[0][0]), sealing_place("orders", 1, 2))),
        ]  # fmt: skip


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


async def rotated(database: Database, *, dry_run: bool = False, cipher: AesGcmCipher = DURING) -> list[Resealed]:
    steps = Resealing(database, cipher, nothing_in_topics).reseal(dry_run=dry_run)
    return [step async for step in steps]


def sealed_with(database_url: str, cipher: AesGcmCipher) -> Counter[str]:
    """Values of this key by column, over all columns of bytes that there are."""
    columns = execute(
        database_url,
        "select table_name, column_name from information_schema.columns "
        "where table_schema = 'payment_service' and data_type = 'bytea'",
    )
    found: Counter[str] = Counter()
    for table, column in columns:
        query = (
            f"select count(*) from payment_service.{table} where substring({column} from 1 for 5) "
            f"= '\\x{cipher.header.hex()}'"
        )
        ((count,),) = execute(database_url, query)
        found[f"{table}.{column}"] += int(str(count))
    return +found


async def test_everything_that_is_sealed_is_sealed_anew(database_url: str, database: Database) -> None:
    before = Site(database, BEFORE)
    await before.fill()
    assert sealed_with(database_url, BEFORE) == dict.fromkeys(NAMES, 1), "and nothing else is sealed anywhere"
    said = await before.read()
    dry = await rotated(database, dry_run=True)
    assert (sum(step.done for step in dry), sealed_with(database_url, AFTER)) == (7, {})
    steps = await rotated(database)
    assert {step.column: step.done for step in steps if step.done} == dict.fromkeys(NAMES, 1)
    assert not any(step.done or step.busy or step.unreadable for step in steps if step.round == 2)
    assert (sealed_with(database_url, BEFORE), sealed_with(database_url, AFTER)) == ({}, dict.fromkeys(NAMES, 1))
    after = Site(database, AFTER)
    assert await after.read() == said == [
        "tok_1", "tok_1", b"{body}", b"{answer}", "pm_2", "cus_2", 2_000_000
    ]  # fmt: skip
    assert max(step.round for step in await rotated(database)) == 1, "there is nothing left to do"


async def test_it_is_cut_off_and_goes_on(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resealing, "ROWS_MAX", 7)
    monkeypatch.setattr(resealing, "BLOCKS_PAGE", 2)
    site = Site(database, BEFORE)
    await asyncio.gather(*(site.commit(f"o{number}", f"tok_{number}") for number in range(50)))
    async with aclosing(Resealing(database, DURING, nothing_in_topics).reseal(dry_run=False)) as steps:
        assert [(await anext(steps)).done for _ in range(2)] == [0, 7]
    assert sealed_with(database_url, AFTER) == {"payments.secrets": 7}
    again = await rotated(database)
    assert sum(step.done for step in again) == 43
    assert max(step.done for step in again) <= 7
    blocks = [(step.blocks, step.blocks_total) for step in again if step.column == "payments.secrets" and step.blocks]
    assert len(blocks) > 1
    after = Site(database, AFTER)
    for number in range(50):
        assert (await after.store.load(payment_id_of(f"o{number}"))).secrets.method_token == f"tok_{number}"


class Meddling(Database):
    """Does something between the moment a payment is read and the moment it is sealed anew."""

    meddle: Callable[[], Awaitable[None]]
    meddled = False

    async def fetch(self, query: str, *args: Any, **more: Any) -> list[Any]:
        if query == COLUMNS[0].sql("reseal") and not self.meddled:
            self.meddled = True
            await self.meddle()
        return await super().fetch(query, *args, **more)


@pytest.mark.parametrize("replaced", [False, True], ids=["changed", "another row in its place"])
async def test_a_change_of_a_worker_is_never_overwritten(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    monkeypatch.setattr(resealing, "ROUND_PAUSE_S", 0.0)
    await Site(database, BEFORE).commit("o1")
    meddling, worker = Meddling(database_url), Site(database, DURING, NEW)

    async def meddle() -> None:
        if not replaced:
            await worker.go_on(charge(payment_id_of("o1")), secrets=Secrets(method_token="tok_newer"))
            return
        execute(database_url, "delete from payment_service.payments")
        execute(database_url, "vacuum payment_service.payments")
        await worker.commit("o2", "tok_newer")
        assert execute(database_url, "select ctid::text from payment_service.payments") == [("(0,1)",)]

    meddling.meddle = meddle
    steps = await rotated(meddling)
    assert (sum(step.busy for step in steps), meddling.meddled) == (1, True)
    loaded = await Site(database, AFTER).store.load(payment_id_of("o2" if replaced else "o1"))
    assert loaded.secrets.method_token == "tok_newer"
    assert sealed_with(database_url, BEFORE) == {}
    await meddling.close()


async def test_a_locked_row_is_not_waited_for(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resealing, "ROUND_PAUSE_S", 0.0)
    site = Site(database, BEFORE)
    await site.commit("o1")
    await site.commit("o2")
    worker = psycopg2.connect(database_url)
    with worker.cursor() as cursor:
        cursor.execute(f"update payment_service.payments set version = version where id = '{payment_id_of('o1')}'")
    steps: list[Resealed] = []
    async with aclosing(Resealing(database, DURING, nothing_in_topics).reseal(dry_run=False)) as running:
        async for step in running:
            steps.append(step)
            if step.column == NAMES[-1]:
                worker.commit()
    worker.close()
    assert [(step.round, step.done, step.busy) for step in steps if step.done or step.busy] == [(1, 1, 1), (2, 1, 0)]
    assert max(step.round for step in steps) == 3


async def test_workers_go_on_meanwhile(database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seal new values, others keep the sealed one and move the row; each is in the end what they last wrote."""
    monkeypatch.setattr(resealing, "ROUND_PAUSE_S", 0.05)
    monkeypatch.setattr(resealing, "ROWS_MAX", 5)
    site = Site(database, BEFORE)
    ids = await asyncio.gather(*(site.commit(f"o{number}") for number in range(60)))
    worker = Site(database, DURING, NEW)
    last = dict.fromkeys(ids, "tok_1")

    async def works(payment_id: str, number: int) -> None:
        await asyncio.sleep(number / 200)
        secrets = Secrets(method_token=f"tok_new_{number}") if number % 2 else None
        await worker.go_on(charge(payment_id, f"charge:{number}"), secrets=secrets)
        if secrets is not None:
            last[payment_id] = f"tok_new_{number}"
        await worker.go_on(answer(payment_id, Verdict.DECLINED, f"answer:{number}"))

    working = [asyncio.create_task(works(payment_id, number)) for number, payment_id in enumerate(ids)]
    await rotated(database)
    await asyncio.gather(*working)
    await rotated(database)  # what moved in the very last round
    assert sealed_with(database_url, BEFORE) == {}
    after = Site(database, AFTER)
    assert {one: (await after.store.load(one)).secrets.method_token for one in ids} == last


async def test_a_worker_with_the_older_key_is_noticed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resealing, "ROUND_PAUSE_S", 0.0)
    monkeypatch.setattr(resealing, "ROUNDS_MAX", 3)
    before, steps = Site(database, BEFORE), []
    await before.commit("o0")
    async with aclosing(Resealing(database, DURING, nothing_in_topics).reseal(dry_run=False)) as running:
        async for step in running:
            steps.append(step)
            if step.column == NAMES[-1] and not step.blocks:
                await before.commit(f"o{step.round}")
    assert [(step.round, step.done) for step in steps if step.done] == [(1, 1), (2, 1), (3, 1)]


async def test_what_no_key_opens_is_told_and_left_as_it_is(database_url: str, database: Database) -> None:
    site = Site(database, BEFORE)
    await site.fill()
    await site.commit("o2")
    execute(database_url, "update payment_service.payment_webhooks set body = body || 'x'")
    execute(database_url, f"update payment_service.payments set secrets = 'x' where id = '{payment_id_of('o2')}'")
    stranger = AesGcmCipher(b"s" * 32).seal(b"x", sealing_place("orders", 1, 9))
    await site.letter(stranger, 9, sealed=True)
    steps = await rotated(database)
    unreadable = {place for step in steps for place in step.unreadable}
    assert unreadable == {
        f"payments.secrets:{payment_id_of('o2')}", "payment_webhooks.body:STRIPE:evt_1", "dead-letter:orders:1:9",
    }  # fmt: skip
    assert sum(step.done for step in steps) == 6
    assert max(step.round for step in steps) == 2, "nothing is tried for ever"
    kept = await database.fetch('select value from payment_service.dead_letters where "offset" = 9')
    assert base64.b64encode(bytes(kept[0][0])) == base64.b64encode(stranger)


async def test_a_chain_may_go_on_under_a_newer_key(database_url: str, database: Database) -> None:
    payment_id = await Site(database, BEFORE).commit("o1")
    await Site(database, DURING, NEW).go_on(charge(payment_id))
    await Site(database, BEFORE, OLD).go_on(answer(payment_id, Verdict.DECLINED))  # a worker not changed yet
    await Site(database, DURING, NEW).go_on(charge(payment_id, "again"))
    await rotated(database)

    async def no_anchors() -> Anchored:
        return Anchored()

    both, new = (chain_key(NEW), chain_key(OLD)), (chain_key(NEW),)
    for keys, problems in ((both, 0), (new, 2)):
        verified = [step async for step in AuditVerifier(database, keys, no_anchors).verify(None)]
        assert sum(len(step.problems) for step in verified) == problems
        store = PostgresPaymentStore(database, AFTER, keys[0], SHARDS, lambda rows: None, old_chain_keys=keys[1:])
        assert len(await store.verify_chain(payment_id)) == problems
    execute(database_url, "alter table payment_service.payment_events disable trigger all")
    execute(database_url, "update payment_service.payment_events set data = data || ' ' where version = 2")
    verified = [step async for step in AuditVerifier(database, both, no_anchors).verify(None)]
    assert [problem.what[:9] for step in verified for problem in step.problems] == ["version 2"]
