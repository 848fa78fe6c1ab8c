"""Messages to the broker, in batches, with an answer for each: the one Kafka producer of the service.

Room: adapters. Per partition there is one batch under way, and what comes meanwhile makes the next one: no task and no
future for a message. A failed batch goes back to the front of its partition, so that order is kept; it is repeated
until the broker takes it, its owner abandons it, or it can never be taken. The producer's own `send` is not used: it
waits in line behind a full partition, and it makes the broker create a topic that does not exist.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)

from payment_service.adapters.kafka_client import REQUEST_BYTES_MAX, KafkaClient
from payment_service.adapters.kafka_message import Message, NeverTaken, partition_hashes
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Metrics

LINGER_S = 0.002
"""How long the first message after a pause waits for others."""
ROUND_S = 0.02
"""Least time between two rounds of batches: under a steady flow each costs a request, here and at the broker."""
MESSAGE_BYTES_MAX = REQUEST_BYTES_MAX - 1_000
UNDER_WAY_BYTES_MAX = 900_000
"""Sent and unacked, for one broker: aiokafka puts every batch for a broker into one request, which may have 1 MB."""
BATCH_MESSAGES_MAX = 2_000
"""The loop is held while a batch is written, about 4 us for each message."""
RETRY_DELAY_S_MIN = 0.1
RETRY_DELAY_S_MAX = 5.0
ALARM_DELAY_S_MAX = 30.0
"""For what only an operator can mend: rights, a topic that is missing."""
CONNECT_S = 10.0
CONNECT_DELAY_S_MIN = 0.5
CONNECT_DELAY_S_MAX = 10.0
CLOSE_S = 1.5
CLOSE_TRIES = 3
RENEW_S = 60.0
"""Nothing was acked for so long, though something was to be sent: the producer is made anew (seen with clients whose
brokers have all moved)."""

_NEVER = (
    MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError, UnsupportedForMessageFormatError,
)  # fmt: skip
_ALARM = (
    UnknownTopicOrPartitionError, TopicAuthorizationFailedError, ClusterAuthorizationFailedError, InvalidTopicError,
    AuthenticationFailedError, SaslAuthenticationFailed,
)  # fmt: skip

_log = logging.getLogger(__name__)


class _Partition:
    """A partition's line. `number` None: the topic is not known yet."""

    __slots__ = ("batch_max", "busy", "delay_s", "number", "retry_at", "topic", "waiting")

    def __init__(self, topic: str, number: int | None) -> None:
        self.topic = topic
        self.number = number
        self.waiting: deque[Message] = deque()
        self.busy = False
        self.retry_at = 0.0
        self.delay_s = 0.0
        self.batch_max = BATCH_MESSAGES_MAX


class KafkaSender:
    """`put` never waits and never fails. How much may be put is for the callers to limit."""

    def __init__(self, client: KafkaClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._producer: AIOKafkaProducer | None = None
        self._fresh: deque[Message] = deque()
        self._partitions: dict[tuple[str, int | None], _Partition] = {}
        self._under_way: Counter[int] = Counter()  # bytes by broker
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._renew = asyncio.Event()
        self._acked_at = 0.0
        self._refreshing = False
        self._broken: BaseException | None = None
        self.blocked: set[str] = set()
        """Full names of topics that cannot be written now: missing, or not allowed to us."""

    @property
    def connected(self) -> bool:
        return self._producer is not None

    def put(self, message: Message) -> None:
        self._fresh.append(message)
        if not self._wake.is_set():
            self._wake.set()

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]],
        timeout_s: float, placed_by: bytes | None = None,
    ) -> None:  # fmt: skip
        """One message, acked. Raises NeverTaken, or Unavailable: it may still arrive later, send it again."""
        if self._producer is None:
            raise Unavailable("the broker is away")
        waiter = _Waiter()
        self.put(Message(topic, key, value, list(headers), waiter, waiter.settle, placed_by=placed_by))
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.future
        except TimeoutError:
            raise Unavailable("the broker did not answer in time") from None
        finally:
            waiter.abandoned = True

    # --- connecting ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A broker that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_producer())
            group.create_task(self._send_batches())

    async def _keep_producer(self) -> None:
        delay_s = 0.0
        while True:
            producer = AIOKafkaProducer(**self._client.producer_options())
            try:
                await self._start(producer)
                delay_s = 0.0
                await self._renew.wait()
                _log.warning("kafka producer is made anew")
            except Exception as error:  # the driver's own bugs too: without a producer no event would go out any more
                self._count_failure(error)
                delay_s = min(max(delay_s * 2, CONNECT_DELAY_S_MIN), CONNECT_DELAY_S_MAX)
                _log.warning("kafka cannot be reached error=%s again_in_s=%.1f", type(error).__name__, delay_s)
            finally:
                self._producer = None
                await self._close(producer)
            await asyncio.sleep(delay_s)

    async def _start(self, producer: AIOKafkaProducer) -> None:
        async with asyncio.timeout(CONNECT_S):
            await producer.start()
            await producer.client.force_metadata_update()  # start asks for brokers only; this for all topics
        self._acked_at = asyncio.get_running_loop().time()
        self._renew.clear()
        self._producer = producer
        self._wake.set()

    async def _close(self, producer: AIOKafkaProducer) -> None:
        """What is unacked goes back to its line. aiokafka's stop waits for acks as long as a request may take: while
        something is under way its parts are ended by hand instead."""
        idle = not self._tasks
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        if idle:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await producer.stop()
                    return
        producer._closed = True
        with contextlib.suppress(Exception):  # what ended its parts before comes out here
            await producer.client.close()
        sender = producer._sender.sender_task
        for _ in range(CLOSE_TRIES):  # the first cancellation makes it wait for its requests, the next one ends those
            if sender is not None and not sender.done():
                sender.cancel()
                await asyncio.wait([sender], timeout=CLOSE_S / CLOSE_TRIES)

    # --- sending ---------------------------------------------------------------------------------------------

    async def _send_batches(self) -> None:
        loop, now = asyncio.get_running_loop(), 0.0
        while True:
            await self._wake.wait()
            await asyncio.sleep(max(LINGER_S, now + ROUND_S - loop.time()))
            self._wake.clear()
            if self._broken is not None:
                raise self._broken
            producer = self._producer
            if producer is None:
                continue
            now = loop.time()
            self._sort(producer, now)
            for partition in [it for it in self._partitions.values() if it.waiting]:
                if not partition.busy and partition.retry_at <= now and partition.number is not None:
                    self._start_batch(producer, partition)

    def _sort(self, producer: AIOKafkaProducer, now: float) -> None:
        """Messages into the lines of their partitions. Those of a topic that nobody knows wait in a line of their own;
        the client is asked for all topics, never for one by name, since asking by name may create it."""
        counts: dict[str, int] = {}
        missing: dict[str, _Partition] = {}
        for key in [key for key, it in self._partitions.items() if it.number is None and it.retry_at <= now]:
            self._fresh.extendleft(reversed(self._partitions[key].waiting))
            missing[key[0]] = self._partitions.pop(key)
        fresh, self._fresh = self._fresh, deque()
        hashes = partition_hashes([message.placed_by for message in fresh if message.placed_by is not None])
        for message in fresh:
            if message.holder.abandoned:
                continue
            if message.size > MESSAGE_BYTES_MAX:
                message.settle(message, NeverTaken(MessageSizeTooLargeError.__name__))
                continue
            topic = message.topic
            count = counts.get(topic)
            if count is None:
                count = counts[topic] = len(producer.client.cluster.partitions_for_topic(topic) or ())
            if count == 0:
                number = None
            elif message.placed_by is None:
                number = random.randrange(count)  # noqa: S311 - spreads messages, guards nothing
            else:
                number = hashes[message.placed_by] % count
            partition = self._partitions.get((topic, number))
            if partition is None:
                partition = self._partitions[topic, number] = _Partition(topic, number)
            partition.waiting.append(message)
        self._note_missing(producer, missing, now)

    def _note_missing(self, producer: AIOKafkaProducer, before: dict[str, _Partition], now: float) -> None:
        for (topic, number), partition in self._partitions.items():
            if number is None and partition.retry_at <= now:
                partition.delay_s = before[topic].delay_s if topic in before else 0.0
                self._wait(partition, UnknownTopicOrPartitionError(), now)
                self._refresh(producer)
        for topic in before:
            if (topic, None) not in self._partitions:
                self.blocked.discard(topic)

    def _refresh(self, producer: AIOKafkaProducer) -> None:
        """One request at a time; its end wakes nobody: the line looks again when its wait is over."""
        if not self._refreshing:
            self._refreshing = True
            asked = producer.client.force_metadata_update()
            asked.add_done_callback(self._refreshed)

    def _refreshed(self, asked: "asyncio.Future[Any]") -> None:
        self._refreshing = False
        if not asked.cancelled() and asked.exception() is not None:
            self._count_failure(asked.exception())

    def _start_batch(self, producer: AIOKafkaProducer, partition: _Partition) -> None:
        node = producer.client.cluster.leader_for_partition(TopicPartition(partition.topic, partition.number))
        node = -1 if node is None else node
        free = UNDER_WAY_BYTES_MAX - self._under_way[node]
        batch = producer.create_batch()
        taken: list[Message] = []
        size = 0
        waiting = partition.waiting
        while waiting and len(taken) < partition.batch_max:
            message = waiting[0]
            if message.holder.abandoned:
                waiting.popleft()
                continue
            if size + message.size > free and (taken or self._under_way[node]):
                break  # one that is larger than what is ever free goes alone
            try:
                full = (
                    batch.append(timestamp=None, key=message.key, value=message.value, headers=message.headers) is None
                )
            except (TypeError, ValueError) as error:  # of no kind that a record has: it must not hold up the others
                waiting.popleft()
                message.settle(message, NeverTaken(type(error).__name__))
                continue
            if full:
                break
            waiting.popleft()
            taken.append(message)
            size += message.size
        if not taken:
            if not waiting:
                self.blocked.discard(partition.topic)
            return
        batch.close()
        partition.busy = True
        self._under_way[node] += size
        key = (partition.topic, partition.number)
        self._partitions[key] = self._partitions.pop(key)  # to the end: who waits for room comes first next time
        task = asyncio.get_running_loop().create_task(self._deliver(producer, partition, batch, taken))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._delivered(done, partition, node, size))

    def _delivered(self, task: "asyncio.Task[None]", partition: _Partition, node: int, size: int) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()  # our own bug, while a message was settled: run() ends with it
        self._under_way[node] -= size
        partition.busy = False
        self._wake.set()

    async def _deliver(
        self, producer: AIOKafkaProducer, partition: _Partition, batch: Any, taken: list[Message]
    ) -> None:
        try:
            await (await producer.send_batch(batch, partition.topic, partition=partition.number))
        except asyncio.CancelledError:
            partition.waiting.extendleft(reversed(taken))
            raise
        except Exception as error:  # the driver's own bugs too: the batch must come back to its line
            self._failed(partition, taken, error)
            return
        now = asyncio.get_running_loop().time()
        self._acked_at = now
        partition.delay_s = 0.0
        partition.batch_max = min(partition.batch_max * 2, BATCH_MESSAGES_MAX)
        self.blocked.discard(partition.topic)
        self._metrics.count("events_published", len(taken), topic=partition.topic)
        self._metrics.observe("publisher_batch_size", len(taken))
        for message in taken:
            message.settle(message, None)

    def _failed(self, partition: _Partition, taken: list[Message], error: Exception) -> None:
        self._count_failure(error)
        now = asyncio.get_running_loop().time()
        if isinstance(error, _NEVER):
            if len(taken) == 1:
                partition.batch_max = BATCH_MESSAGES_MAX
                taken[0].settle(taken[0], NeverTaken(type(error).__name__))
                return
            partition.batch_max = len(taken) // 2  # one of them, or their sum: halved until it shows
            partition.waiting.extendleft(reversed(taken))
            return
        partition.waiting.extendleft(reversed(taken))
        self._wait(partition, error, now)
        if not isinstance(error, KafkaError) or now - self._acked_at > RENEW_S:
            self._renew.set()

    def _wait(self, partition: _Partition, error: Exception, now: float) -> None:
        alarm = isinstance(error, _ALARM)
        delay_max_s = ALARM_DELAY_S_MAX if alarm else RETRY_DELAY_S_MAX
        partition.delay_s = min(max(partition.delay_s * 2, RETRY_DELAY_S_MIN), delay_max_s)
        partition.retry_at = now + partition.delay_s
        if alarm:
            self.blocked.add(partition.topic)
        _log.log(
            logging.ERROR if alarm else logging.WARNING,
            "messages wait topic=%s partition=%s waiting=%d error=%s again_in_s=%.1f",
            partition.topic, partition.number, len(partition.waiting), type(error).__name__, partition.delay_s,
        )  # fmt: skip
        asyncio.get_running_loop().call_later(partition.delay_s + 0.001, self._wake.set)

    def _count_failure(self, error: BaseException | None) -> None:
        self._metrics.count("publisher_failures", reason=type(error).__name__)


class _Waiter:
    """Who waits in `send`."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.abandoned = False

    def settle(self, _: Message, error: NeverTaken | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)
