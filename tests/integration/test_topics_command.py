"""`payment-service topics` on a real Kafka that allows everything, and on one that allows as little as OCI does."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from click.testing import CliRunner, Result
from servers.narrow_kafka import NarrowKafka

from payment_service.cli import main as entry

pytestmark = pytest.mark.kafka

Run = Callable[..., Result]
LOOKS_MAX = 100


@pytest.fixture(scope="module")
def narrow() -> Iterator[NarrowKafka]:
    with NarrowKafka() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}-"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str, narrow: NarrowKafka) -> Run:
    monkeypatch.chdir(tmp_path)
    for name, value in {"ENVIRONMENT": "test", "KAFKA_BROKERS": narrow.address, "TOPIC_PREFIX": prefix}.items():
        monkeypatch.setenv(name, value)

    def invoke(*arguments: str, **env: str) -> Result:
        return CliRunner().invoke(entry.program(), ["-A", entry.APP, "topics", *arguments], env=env)

    return invoke


def verdicts(result: Result, prefix: str) -> dict[str, str]:
    return {it["topic"].removeprefix(prefix): it["verdict"] for it in json.loads(result.stdout)}


async def changed(broker: str, name: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        answer = await admin.create_partitions({name: NewPartitions(partitions)})
        assert [code for _, code, _ in answer.topic_errors] == [0], answer
        for _ in range(LOOKS_MAX):
            if len((await admin.describe_topics([name]))[0]["partitions"]) == partitions:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} has not got its partitions")
    finally:
        await admin.close()


def test_missing_then_made_then_well_then_wrong(run: Run, prefix: str, narrow: NarrowKafka) -> None:
    before = run("check", "--json")
    assert before.exit_code == 1, before.output
    assert set(verdicts(before, prefix).values()) == {"MISSING"}
    printed = run("create", "--as", "kafka")
    assert printed.exit_code == 1
    assert f"--topic '{prefix}payment.created' --partitions 4" in printed.stdout
    refused = run("create", KAFKA_CREATE_TOPICS="false")
    assert refused.exit_code == 1 and "KAFKA_CREATE_TOPICS is false" in refused.stderr
    assert set(verdicts(run("check", "--json"), prefix).values()) == {"MISSING"}, "printing makes nothing"

    made = run("create", "--json")
    assert made.exit_code == 0, made.output
    assert f"{prefix}orders" in json.loads(made.stdout)["made"]
    again = run("create")
    assert again.exit_code == 0 and "Nothing is missing" in again.stderr
    after = run("check", "--json")
    assert after.exit_code == 0, after.output
    told = verdicts(after, prefix)
    assert (
        told["payment.created"] == told["payment-service-payments-changelog"] == told["payment-audit-anchors"] == "OK"
    )

    asyncio.run(changed(narrow.address, f"{prefix}payment.failed", 6))
    wrong = run("check")
    assert wrong.exit_code == 1
    assert "has 6 partitions, TOPIC_PARTITIONS says 4" in " ".join(wrong.stdout.split())


def test_on_oci_terraform_is_printed_and_nothing_made(run: Run, prefix: str, narrow: NarrowKafka) -> None:
    env = {**narrow.env, "OCI_STREAM_POOL_ID": "ocid1.pool"}
    printed = run("create", **env)
    assert printed.exit_code == 1, printed.output
    assert f'name               = "{prefix}payment.created"' in printed.stdout
    assert "nothing was made" in printed.stderr
    cli = run("create", "--as", "oci-cli", **env)
    assert f"--name '{prefix}orders' --partitions 4 --retention-in-hours 72 --stream-pool-id 'ocid1.pool'" in cli.stdout
    assert run("create").exit_code == 0, "as the operator, beside OCI's narrow door"
    seen = run("check", "--json", **env)
    assert seen.exit_code == 0, seen.output
    assert {it["retentionMs"] for it in json.loads(seen.stdout)} == {None}, "it tells no configuration"
    shown = run("check", **env)
    assert "? is not told by the broker" in shown.stdout
    assert narrow.env["KAFKA_SASL_PASSWORD"] not in printed.output + seen.output + shown.output


def test_a_broker_that_is_away(run: Run) -> None:
    away = run("check", KAFKA_BROKERS="127.0.0.1:1")
    assert away.exit_code == 3 and "broker is away" in away.stderr
