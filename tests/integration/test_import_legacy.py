"""`payment-service import-legacy` on tables laid out as the old service's: taken over whole, once, by their old ids."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.commands import command
from rigs.legacy_tables import LegacyTables, cuid, encrypted
from rigs.sim_process import SimProcess
from rigs.worker import ENCRYPTION_KEY, PROGRAM, Installation, Worker
from servers.postgres import execute

from payment_service.core.ids import payment_id_of
from payment_service.core.payment_method import own_method_id

pytestmark = pytest.mark.long

PAYMENTS = 8_000
OLD_KEY = "the old service's own words"
Said = dict[str, Any]


@pytest.fixture
def old(database_url: str) -> Iterator[LegacyTables]:
    tables = LegacyTables(database_url)
    yield tables
    tables.close()


async def imported(site: Installation, *arguments: str, **env: str) -> tuple[int, Said]:
    code, said = await command(site, "import-legacy", "--operator", "ann", *arguments, **env)
    assert isinstance(said, dict), said
    return code, said


def a_shop(old: LegacyTables) -> None:
    """Some of each, with what goes wrong in a shop's life."""
    old.payment(1, "paid", "SUCCEEDED", "CHARGE SUCCEEDED 100", "COMPLETED 30", metadata={"cart": 7}, description="A")
    old.payment(2, "failed", "FAILED", "CHARGE FAILED 100")
    old.payment(3, "twice", "CANCELLED", "CHARGE FAILED 100", createdAt="2025-12-01T00:00:00")
    old.payment(4, "twice", "SUCCEEDED", "CHARGE SUCCEEDED 100")
    old.payment(5, "late", "CANCELLED", "CHARGE SUCCEEDED 100")
    old.payment(6, "yen", "SUCCEEDED", amount="500.00", currency="JPY")
    old.payment(7, "odd", "SUCCEEDED", amount="99.50", currency="JPY")
    old.payment(8, "fresh", "pending", providerPaymentId=None)
    old.add("payment_methods", id=cuid(1, "m"), userId="user-1", type="CREDIT_CARD", provider="MOCK",
            providerToken=encrypted("tok_visa", OLD_KEY), last4="4242", cardType="visa", expiryMonth="07",
            expiryYear="2030", isDefault=True)  # fmt: skip
    old.add("payment_methods", id=cuid(2, "m"), userId="user-1", type="credit_card", provider="STRIPE",
            providerToken=encrypted("pm_lost", "nobody knows it"), isDefault=True)  # fmt: skip
    old.add("payment_methods", id=cuid(3, "m"), userId="user-1", type="bank_account", provider="STRIPE",
            providerToken=encrypted("ba_1", OLD_KEY), isDefault=False)  # fmt: skip
    for number, status in enumerate(("processed", "pending")):
        event = {"id": f"evt_{number}", "object": "event"}
        old.add("payment_webhooks", id=cuid(number, "w"), provider="STRIPE", eventType="payment_intent.succeeded",
                providerEventId=event["id"], payload=event, status=status)  # fmt: skip
    old.add("payment_webhooks", id=cuid(9, "w"), provider="STRIPE", eventType="x", providerEventId="evt_old",
            payload={}, status="processed", createdAt="2020-01-01T00:00:00")  # fmt: skip


async def test_a_shop_is_taken_over(old: LegacyTables, tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    a_shop(old)
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        code, said = await imported(site, "--dry-run", "--old-key", OLD_KEY)
        assert (code, said["payments"]["imported"], site.count("payments")) == (1, 6, 0)

        code, said = await imported(site, "--old-key", OLD_KEY)
        assert code == 1, "something could not be taken over"
        payments = said["payments"]
        assert (payments["read"], payments["imported"], payments["history"]) == (8, 6, 1)
        assert payments["review"] == {"LEGACY_CANCELLED_BUT_CHARGED": 1}
        assert [it["id"] for it in payments["refusedRows"]] == [cuid(7)]
        assert (said["methods"]["imported"], said["methods"]["refused"]) == (1, 2)
        assert (said["webhooks"]["read"], said["webhooks"]["imported"]) == (2, 2)
        assert site.count("outbox") == 0, "nothing is published"

        code, again = await imported(site, "--old-key", OLD_KEY)
        assert (again["payments"]["imported"], again["payments"]["history"], again["payments"]["before"]) == (0, 0, 7)
        assert (again["methods"]["imported"], again["methods"]["before"]) == (0, 1)
        assert again["webhooks"]["imported"] == 0

        code, audit = await command(site, "audit", "verify", "--no-anchors")
        assert (code, audit["problems"], audit["payments"]) == (0, 0, 6)
        about = "where entry->>'action' = 'legacy.import'"
        actors = execute(database_url, f"select distinct entry->>'actor' from payment_service.audit_log {about}")
        assert actors == [("operator:ann",)]
        await by_old_ids(site)


async def by_old_ids(site: Installation) -> None:
    worker = await site.started()
    paid, history = await shown(worker, cuid(1)), await shown(worker, cuid(3))
    assert (paid["id"], paid["status"]) == (payment_id_of("paid"), "PARTIALLY_REFUNDED")
    assert (paid["amounts"]["captured"], paid["amounts"]["refunded"], paid["metadata"]) == (10_000, 3_000, {"cart": 7})
    assert [(it["type"], it["status"]) for it in paid["transactions"]] == [
        ("CHARGE", "SUCCEEDED"),
        ("REFUND", "SUCCEEDED"),
    ]
    assert (paid["createdAt"], paid["version"]) == ("2026-01-01T00:00:00.000Z", 1)
    assert (history["id"], history["status"], history["orderId"]) == (cuid(3), "CANCELLED", "twice")
    assert (await shown(worker, payment_id_of("twice")))["status"] == "SUCCEEDED"
    assert (await shown(worker, cuid(6)))["amountMinor"] == 500
    late = await shown(worker, cuid(5))
    assert (late["status"], late["needsReview"]) == ("SUCCEEDED", True)
    for path in (cuid(1), cuid(3), cuid(99)):
        assert (await worker.call("GET", f"/api/v1/payments/{path}", user="eve")).code == "PAYMENT_NOT_FOUND"
    body = {"amount": 1}
    refused = await worker.call("POST", f"/api/v1/payments/{cuid(3)}/refund", body, user="user-1")
    assert refused.code == "INVALID_STATE", "history is for reading"
    told = (await worker.call("GET", f"/api/v1/payments/{cuid(1)}/timeline", user="user-1")).data
    assert [(it["type"], it["sequence"], it["details"]["legacyId"]) for it in told] == [
        ("payment_imported", None, cuid(1))
    ]
    code, row = await command(site, "payments", "show", cuid(4))
    assert (code, row["id"]) == (0, payment_id_of("twice"))
    code, row = await command(site, "payments", "timeline", cuid(3))
    assert (code, row[0]["details"]["legacyStatus"]) == (0, "CANCELLED")

    methods = (await worker.call("GET", "/api/v1/payment-methods", user="user-1")).data
    own = own_method_id(cuid(1, "m"))
    assert [(it["id"], it["brand"], it["last4"], it["expMonth"], it["isDefault"]) for it in methods] == [
        (own, "visa", "4242", 7, True)
    ]
    made = await worker.call(
        "POST", "/api/v1/payments", {"orderId": "new", "amount": 5, "paymentMethodId": cuid(1, "m")}, user="user-1"
    )
    answer = await worker.call("POST", f"/api/v1/payments/{made.data['id']}/process", {}, user="user-1")
    assert (answer.status, answer.data["paymentMethodId"]) == (200, own), "with the method by its old id"
    fresh = f"/api/v1/payments/{cuid(8)}/process"
    assert (
        await worker.call("POST", fresh, {"paymentMethodId": "tok_visa"}, user="user-1")
    ).code == "PROVIDER_NOT_CONFIGURED"


async def shown(worker: Worker, payment_id: str) -> Said:
    return dict((await worker.call("GET", f"/api/v1/payments/{payment_id}", user="user-1")).data)


async def test_what_nobody_knows_is_asked_at_the_provider(
    old: LegacyTables, tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    """Made at the stand-in as the old service had made them: without our metadata and keys."""
    async with Installation(tmp_path / "site", tansu_broker, database_url) as site:
        assert site._session is not None
        sim = SimProcess(tmp_path / "sim", site._session)
        sim.start()
        await sim.ready()
        charged, waiting = await intent(site, sim, confirm=True), await intent(site, sim, confirm=False)
        old.payment(1, "charged", "FAILED", "CHARGE FAILED 100", providerPaymentId=charged, **YOUNG)
        old.payment(2, "not charged", "PROCESSING", "CHARGE PENDING 100", providerPaymentId=waiting, **YOUNG)
        code, said = await imported(site)
        assert (code, said["payments"]["asked"]) == (0, 2)
        states = "select order_id, status from payment_service.payments order by 1"
        assert site.rows(states) == [("charged", "UNKNOWN"), ("not charged", "UNKNOWN")]
        keys = {"STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_API_BASE": sim.url, "PAYMENT_PROVIDER": "stripe"}
        await site.started(**keys, ACTION_TTL_S="2")
        await site.until(
            lambda: site.rows(states) == [("charged", "SUCCEEDED"), ("not charged", "FAILED")],
            "the provider has said what became of them",
        )
        assert (await at_provider(site, sim, charged))["amount_received"] == 10_000
        assert (await at_provider(site, sim, waiting))["status"] == "canceled", "nobody is charged for it later"
        sim.kill()


YOUNG: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _young() -> None:
    import datetime

    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(hours=1)
    YOUNG.update(createdAt=now, updatedAt=now)


async def at_provider(site: Installation, sim: SimProcess, name: str) -> Said:
    assert site._session is not None
    headers = {"Authorization": "Bearer sk_test_1"}
    async with site._session.get(f"{sim.url}/v1/payment_intents/{name}", headers=headers) as answer:
        return dict(await answer.json())


async def intent(site: Installation, sim: SimProcess, *, confirm: bool) -> str:
    assert site._session is not None
    form = {"amount": "10000", "currency": "usd", "payment_method_types[]": "card"}
    form |= {"confirm": "true", "payment_method": "pm_card_visa"} if confirm else {}
    headers = {"Authorization": "Bearer sk_test_1"}
    async with site._session.post(f"{sim.url}/v1/payment_intents", data=form, headers=headers) as answer:
        body = await answer.json()
    assert answer.status == 200, body
    assert body["status"] == ("succeeded" if confirm else "requires_payment_method")
    return str(body["id"])


async def test_it_goes_on_where_it_was_killed(
    old: LegacyTables, tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    old.many(PAYMENTS)
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "import-legacy", "--operator", "ann", env={**os.environ, **site.env},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await site.until(lambda: site.count("payments") > 500, "some of them are there")
        process.kill()
        await process.wait()
        before = site.count("payments")
        assert before < PAYMENTS
        code, said = await imported(site)
        assert (code, site.count("payments"), site.count("legacy_payments")) == (0, PAYMENTS, PAYMENTS)
        assert said["payments"]["before"] + said["payments"]["imported"] == PAYMENTS
        code, audit = await command(site, "audit", "verify", "--no-anchors")
        assert (code, audit["payments"]) == (0, PAYMENTS)


async def test_an_order_that_both_services_know(
    old: LegacyTables, tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    old.payment(1, "both", "SUCCEEDED")
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        worker = await site.started()
        made = await worker.call("POST", "/api/v1/payments", {"orderId": "both", "amount": 100}, user="user-1")
        code, said = await imported(site)
        assert code == 1
        assert said["payments"]["refusedRows"][0]["why"].endswith(made.data["id"])
        assert (await shown(worker, made.data["id"]))["needsReview"] is True, "nobody charges it unseen"


async def test_what_it_says_where_there_is_nothing(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        code, said = await command(site, "import-legacy", "--operator", "ann")
        assert (code, "not in the schema public" in said) == (1, True)
        code, said = await command(site, "import-legacy", "--operator", "ann", "--schema", 'x"; drop')
        assert code == 2
        other = LegacyTables(database_url, "shop")
        other.payment(1, "one", "SUCCEEDED")
        other.close()
        code, said = await imported(site, "--schema", "shop", ENCRYPTION_KEY=ENCRYPTION_KEY)
        assert (code, said["payments"]["imported"]) == (0, 1)
