"""The table of reconciliation on real servers: sides that agree, and each disagreement that was planted is found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from rigs.reconciled_site import ReconciledSite, reconciled_site

from payment_service.core.reconciliation import Difference

pytestmark = pytest.mark.long


async def published(site: ReconciledSite, payment_id: str, **changes: Any) -> None:
    """A message on our own topic that our history knows nothing of."""
    row = site.services.table.get(payment_id)  # type: ignore[union-attr]
    assert row is not None
    event = {"eventType": "payment.processed", "timestamp": row["timestamp"], "sequence": row["sequence"] + 1,
             "data": {**row, **changes}}  # fmt: skip
    async with AIOKafkaProducer(bootstrap_servers=site.services.kafka.brokers) as producer:
        topic = f"{site.services.settings.topic_prefix}payment.processed"
        await producer.send_and_wait(topic, orjson.dumps(event), key=payment_id.encode())


async def plant(site: ReconciledSite, paid: Sequence[str]) -> dict[str, Difference]:
    """By payment what must be found."""
    # 1. Our row forgets what the provider did.
    site.change(
        "update payment_service.payments set state = replace(state, '\"APPROVED\"', '\"DECLINED\"')"
        f" where id = '{paid[1]}'"
    )
    # 2. It has another amount than the provider moved.
    site.change(
        "update payment_service.payments set state = replace(state, '\"moved_minor\":9999', '\"moved_minor\":99')"
        f" where id = '{paid[2]}'"
    )
    # 3. The topics have an event that our history does not, as after a database was put back.
    await published(site, paid[3], status="REFUNDED")
    # 4. A row that is gone, although provider and topics know it.
    site.change(f"delete from payment_service.payments where id = '{paid[4]}'")
    # 5. A row that was put back to an older version.
    site.change(
        "update payment_service.payments set version = version - 1,"
        f" state = replace(state, '\"version\":', '\"version\":-') where id = '{paid[5]}'"
    )
    for payment_id in paid[1:]:
        site.touch(payment_id)
    return {
        paid[1]: Difference.NOT_RECORDED, paid[2]: Difference.AMOUNT_DIFFERS, paid[3]: Difference.PUBLISHED_AHEAD,
        paid[4]: Difference.NO_PAYMENT, paid[5]: Difference.WENT_BACK,
    }  # fmt: skip


async def test_sides_that_agree_and_planted_disagreements(
    tansu_broker: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async with reconciled_site(tansu_broker, database_url, tmp_path, monkeypatch) as site:
        paid = [await site.charged(f"order-{number}") for number in range(8)]
        refunded = paid[0]
        await site.post(f"/api/v1/payments/{refunded}/refund", {"amount": 10})
        for payment_id in paid:
            account = await site.until_state(payment_id, "AGREES")
            assert account["provider"]["charge:1"]["amountMinor"] == 9999
        assert site.account(refunded)["provider"]["refund:1"]["amountMinor"] == 1000
        assert site.alarms() == {}

        planted = await plant(site, paid[:6])
        for payment_id, what in planted.items():
            account = await site.until_state(payment_id, "DIFFERS")
            assert list(account["differences"]) == [what], account
        expected = {what.value: 1 for what in planted.values()}
        await site.until(lambda: site.alarms() == expected, f"{expected}, not {site.alarms()}")
        lines = [line for line in capsys.readouterr().out.splitlines() if "told in two ways" in line]
        for payment_id, what in planted.items():
            assert [line for line in lines if payment_id in line and what in line], (payment_id, what, lines)
        assert len(lines) == len(planted), "each once"
        for payment_id in (*paid[:1], *paid[6:]):
            assert site.account(payment_id)["status"] == "AGREES"

        rows = await site.rows()
        assert {key for key, row in rows.items() if row["status"] == "DIFFERS"} == set(planted)
        assert rows[paid[1]]["differences"].keys() == {"NOT_RECORDED"}

        # What is mended is no longer told, without anybody touching it.
        site.change(
            "update payment_service.payments set state = replace(state, '\"DECLINED\"', '\"APPROVED\"')"
            f" where id = '{paid[1]}'"
        )
        await site.until_state(paid[1], "AGREES")
        await site.until(lambda: "NOT_RECORDED" not in site.alarms(), "the alarm has ended")


@pytest.mark.kafka
async def test_a_restart_keeps_since_when_they_differ(
    kafka_broker: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the changelog; a broker that is right about its offsets is needed."""
    async with reconciled_site(kafka_broker, database_url, tmp_path, monkeypatch, alarm_ms=600_000) as site:
        payment_id = await site.charged("order-1")
        await site.until_state(payment_id, "AGREES")
        site.change(f"delete from payment_service.payments where id = '{payment_id}'")
        site.touch(payment_id)
        before = await site.until_state(payment_id, "DIFFERS")
        assert site.alarms() == {}, "not for so long yet"
        prefix = site.services.settings.topic_prefix
    async with reconciled_site(kafka_broker, database_url, tmp_path, monkeypatch, prefix=prefix) as site:
        after = await site.until_state(payment_id, "DIFFERS")
        assert after["differences"] == before["differences"]
        await site.until(lambda: site.alarms() == {"NO_PAYMENT": 1}, "the alarm")
