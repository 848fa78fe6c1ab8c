"""A whole worker that takes its orders from OCI Queue and its key from OCI Vault, by the real SDK."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from rigs.worker import Installation
from servers.oci_emulator import SECRET, OciEmulator
from servers.waiting import until

from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.long

WAIT_S = 90.0
KEY = "a-key-of-the-vault-of-32-letters"


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[OciEmulator]:
    with OciEmulator(tmp_path / "oci", secrets={"CURRENT": KEY.encode()}) as emulator:
        yield emulator


@pytest.fixture
async def shop(oci: OciEmulator, tansu_broker: str, database_url: str, tmp_path: Path) -> AsyncIterator[Installation]:
    env = {
        **oci.env, "EVENT_PUBLISHER_TYPE": "kafka", "ENCRYPTION_KEY": "", "OCI_ENCRYPTION_KEY_SECRET_ID": SECRET,
        "OCI_SECRETS_ENDPOINT": oci.url, "AUTO_PROCESS_ORDERS": "true", "DEAD_LETTERS_PLAIN": "true",
    }  # fmt: skip
    async with Installation(tmp_path, tansu_broker, database_url, **env) as site:
        yield site


def order(number: int) -> str:
    return json.dumps({
        "type": "order.created", "orderId": f"order-{number}", "userId": "user-1", "totalAmount": "10.00",
        "currency": "USD", "paymentMethodId": "tok_visa",
    })  # fmt: skip


async def test_orders_of_the_queue_are_charged(oci: OciEmulator, shop: Installation) -> None:
    """The token travels sealed by the vault's key."""
    for number in range(30):
        oci.put(order(number))
    oci.put("no JSON")
    worker = await shop.started()
    charged = "select count(*) from payment_service.payments where status = 'SUCCEEDED'"
    await shop.until(lambda: shop.rows(charged)[0][0] == 30, "all orders are charged", WAIT_S)
    await until(lambda: not oci.messages, "the queue is empty")
    assert not oci.dead and not oci.refused
    assert (await worker.stop())[0] == 0
    assert KEY not in worker.log


async def test_kill_9_between_ack_and_delete_loses_and_doubles_nothing(oci: OciEmulator, shop: Installation) -> None:
    oci.deletes_allowed.clear()
    for number in range(5):
        oci.put(order(number))
    worker = await shop.started()
    await until(oci.deletes_waiting.is_set, "the broker has them, and the queue is asked to delete them", WAIT_S)
    worker.kill()
    oci.deletes_allowed.set()
    assert len(oci.messages) == 5
    oci.expire()
    worker.start()
    await until(lambda: not oci.messages, "they are taken again and deleted", WAIT_S)
    charged = "select count(*) from payment_service.transactions where status = 'SUCCEEDED'"
    await shop.until(lambda: shop.rows(charged)[0][0] == 5, "each is charged once", WAIT_S)
    await shop.until_told(5, WAIT_S)
    assert shop.count("payments") == 5 and shop.count("transactions") == 5


async def test_poison_is_kept_where_operators_look(oci: OciEmulator, shop: Installation) -> None:
    """Delivered three times to workers that died of it; the fourth is ours to keep, the sixth would be the queue's."""
    number = oci.put(order(1))
    oci.messages[number].deliveries = 3
    worker = await shop.started()
    await until(lambda: not oci.messages, "it is deleted from the queue", WAIT_S)
    assert not oci.dead
    assert "DELIVERED_TOO_OFTEN" in worker.log
    assert shop.count("payments") == 0
    assert payment_id_of("order-1") not in worker.log


async def test_sigterm_while_it_polls_ends_in_time(oci: OciEmulator, shop: Installation) -> None:
    worker = await shop.started()
    await until(lambda: sum(it.endswith("/messages") for it in oci.calls) >= 4, "all pollers wait for messages", WAIT_S)
    code, took_s = await worker.stop()
    assert code == 0 and took_s < 30, worker.log
