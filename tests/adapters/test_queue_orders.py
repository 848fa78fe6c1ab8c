"""Orders from OCI Queue: the real SDK, an emulator that checks its signatures, and a publisher that does as told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from rigs.counted import CountedMetrics
from servers.oci_emulator import QUEUE, OciEmulator
from servers.waiting import until

from payment_service.adapters import oci_queue, queue_orders
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.oci_queue import OciQueue, find_queue
from payment_service.adapters.oci_sign_on import OciRefused, OciSignOn
from payment_service.adapters.queue_orders import QueueOrders
from payment_service.core.errors import Unavailable

ORDER = '{"type": "order.created", "orderId": "o-1"}'


@dataclass
class Topic:
    """A publisher and dead letters in lists."""

    connected: bool = True
    fails: list[Exception] = field(default_factory=list)
    """What the next sends raise."""
    away: bool = False
    """Every send and letter fails."""
    sent: list[tuple[str, bytes | None, tuple[tuple[str, bytes], ...]]] = field(default_factory=list)
    letters: list[tuple[str, int, int, bytes | None, str]] = field(default_factory=list)

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        if self.away:
            raise Unavailable("the broker is away")
        if self.fails:
            raise self.fails.pop(0)
        self.sent.append((topic, value, tuple(headers)))

    async def keep(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...], reason: str, error: str,
    ) -> None:  # fmt: skip
        if self.away:
            raise Unavailable("the database is away")
        self.letters.append((topic, partition, offset, value, reason))


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[OciEmulator]:
    with OciEmulator(tmp_path / "oci") as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (oci_queue, "POLL_S", 1), (queue_orders, "LOOK_S", 0.05), (queue_orders, "AWAY_S", 0.05),
        (queue_orders, "AGAIN_S_MIN", 0.05), (queue_orders, "REFUSED_S", 0.1), (queue_orders, "HOLD_AGAIN_S", 0.2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def signing(oci: OciEmulator) -> OciSignOn:
    return OciSignOn("config-file", oci.config, "DEFAULT", "ap-hyderabad-1")


@asynccontextmanager
async def reading(
    oci: OciEmulator,
    topic: Topic,
    *,
    deliveries_max: int = 4,
    metrics: CountedMetrics | None = None,
    knows: bool = True,
) -> AsyncIterator[QueueOrders]:
    """`knows`: the endpoint is set, so that the queue itself is not asked for it."""
    sign_on = signing(oci)
    orders = QueueOrders(
        partial(find_queue, sign_on, QUEUE, oci.url if knows else None, oci.url), partial(OciQueue, sign_on, QUEUE),
        "orders", "t-", topic, topic, metrics or CountedMetrics(), deliveries_max,
    )  # fmt: skip
    running = asyncio.create_task(orders.run())
    try:
        yield orders
    finally:
        await orders.stop(5)
        assert running.done()
        await running


async def test_messages_go_to_the_topic_and_leave_the_queue(oci: OciEmulator) -> None:
    topic, metrics = Topic(), CountedMetrics()
    ids = [oci.put(f"{ORDER} ", ce_type="order.created") for _ in range(50)]
    async with reading(oci, topic, metrics=metrics):
        await until(lambda: not oci.messages, "all of them are deleted")
    assert sorted(int(dict(headers)["oci_queue_message"]) for _, _, headers in topic.sent) == ids
    name, value, headers = topic.sent[0]
    assert (name, value, dict(headers)["ce_type"]) == ("orders", f"{ORDER} ".encode(), b"order.created")
    assert oci.refused == [] and not oci.dead and not topic.letters


async def test_deleted_only_after_the_ack(oci: OciEmulator) -> None:
    """While the broker does not take them they are held, which costs no delivery, however long it lasts."""
    topic = Topic(away=True)
    oci.put(ORDER)
    async with reading(oci, topic):
        await until(lambda: sum("updateMessages" in it for it in list(oci.calls)) >= 3, "it is held again and again")
        assert not any("deleteMessages" in it for it in oci.calls)
        assert [it.deliveries for it in oci.messages.values()] == [1]
        topic.away = False
        await until(lambda: not oci.messages, "it is deleted")
    assert len(topic.sent) == 1


async def test_nothing_is_taken_while_the_broker_is_away(oci: OciEmulator) -> None:
    topic = Topic(connected=False)
    oci.put(ORDER)
    async with reading(oci, topic):
        await asyncio.sleep(0.5)
        assert not any(it.endswith("/messages") for it in oci.calls)
        topic.connected = True
        await until(lambda: not oci.messages, "it is taken")


async def test_what_is_not_acked_at_the_end_is_given_back(oci: OciEmulator) -> None:
    topic = Topic(away=True)
    oci.put(ORDER)
    async with reading(oci, topic):
        await until(lambda: oci.in_flight() == 1, "it is taken")
    assert oci.in_flight() == 0 and len(oci.messages) == 1
    async with reading(oci, Topic()):
        await until(lambda: not oci.messages, "the next one takes it")


@pytest.mark.parametrize(
    ("content", "fails", "reason"),
    [(ORDER, [NeverTaken("MessageSizeTooLargeError")], "NEVER_TAKEN"), ('"\ud800"', [], "NOT_TEXT")],
)
async def test_what_can_never_be_taken_is_a_dead_letter(
    oci: OciEmulator, content: str, fails: list[Exception], reason: str
) -> None:
    topic = Topic(fails=fails)
    number = oci.put(content)
    async with reading(oci, topic):
        await until(lambda: not oci.messages, "it is deleted")
    assert topic.letters == [("t-orders", -1, number, content.encode(errors="surrogatepass"), reason)]
    assert not topic.sent and not oci.dead


@pytest.mark.parametrize("knows", [True, False], ids=["by the setting", "by what the queue says"])
async def test_poison_is_a_dead_letter_before_the_queue_puts_it_away(oci: OciEmulator, knows: bool) -> None:
    """Somebody took it again and again and died. The queue allows 5 deliveries."""
    topic = Topic()
    poison, fine = oci.put("poison"), oci.put(ORDER)
    oci.messages[poison].deliveries = 3
    async with reading(oci, topic, deliveries_max=4 if knows else 100, knows=knows):
        await until(lambda: not oci.messages, "both are deleted")
    assert [letter[2:] for letter in topic.letters] == [(poison, b"poison", "DELIVERED_TOO_OFTEN")]
    assert [dict(headers)["oci_queue_message"] for *_, headers in topic.sent] == [str(fine).encode()]
    assert not oci.dead


async def test_a_queue_that_is_away_is_asked_again(oci: OciEmulator) -> None:
    topic, metrics = Topic(), CountedMetrics()
    oci.failures += [500, 429, 503, 500, 404, 500]
    oci.put(ORDER)
    async with reading(oci, topic, metrics=metrics):
        await until(lambda: not oci.messages, "it is deleted")
    assert len(topic.sent) >= 1


async def test_a_wrong_key_is_an_alarm_and_no_end(oci: OciEmulator, caplog: pytest.LogCaptureFixture) -> None:
    right = oci.config.read_text()
    wrong = oci.write_config("wrong", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    oci.config.write_text(wrong.read_text())
    oci.put(ORDER)
    topic = Topic()
    async with reading(oci, topic):
        await until(lambda: bool(oci.refused), "it is refused")
        await until(lambda: "401 NotAuthenticated" in caplog.text, "it says so")
        assert len(oci.messages) == 1
    oci.config.write_text(right)
    async with reading(oci, topic):
        await until(lambda: not oci.messages, "it is deleted")
    assert "PRIVATE" not in caplog.text


async def test_a_bug_ends_it_loudly_and_loses_nothing(oci: OciEmulator) -> None:
    topic = Topic(fails=[RuntimeError("a bug")])
    oci.put(ORDER)
    sign_on = signing(oci)
    orders = QueueOrders(
        partial(find_queue, sign_on, QUEUE, oci.url), partial(OciQueue, sign_on, QUEUE), "orders", "", topic, topic,
        CountedMetrics(), 4,
    )  # fmt: skip
    with pytest.raises(ExceptionGroup):
        await orders.run()
    assert len(oci.messages) == 1


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda oci: OciSignOn("config-file", Path("/there/is/none"), "DEFAULT", "r"), "OCI_CONFIG_FILE"),
        (lambda oci: OciSignOn("config-file", oci.config, "ANOTHER", "r"), "OCI_CONFIG_PROFILE"),
        (lambda oci: OciSignOn("resource-principal", oci.config, "DEFAULT", "r"), "OCI_SIGN_ON"),
    ],
)
def test_what_cannot_sign_on_says_which_setting(
    oci: OciEmulator, made: Callable[[OciEmulator], OciSignOn], told: str
) -> None:
    with pytest.raises(OciRefused, match=told):
        OciQueue(made(oci), QUEUE, oci.url)


def test_the_emulator_refuses_what_is_signed_for_something_else(oci: OciEmulator) -> None:
    """Or the tests above would say nothing about signatures."""
    client = OciQueue(signing(oci), QUEUE, oci.url)._client
    signer = client.base_client.signer
    prepared = requests.Request("GET", f"{oci.url}/20210201/queues/{QUEUE}/messages?limit=1", auth=signer).prepare()
    prepared.url = prepared.url.replace("limit=1", "limit=20")  # type: ignore[union-attr]
    assert requests.Session().send(prepared, timeout=5).status_code == 401
    assert oci.refused == ["the signature is wrong"]
