"""Faust, made safe to lose nothing: our App with its consumer, topics and tables.

Room: Kafka in. No business words here, and no decision about what is finished: that is delivery.py's, which
this asks through `RecordFeed`. What is overridden here was read and reproduced against faust-streaming 0.15.3
and aiokafka 0.14; both are pinned to these minor versions for that reason.
"""

import asyncio
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import faust
import faust.streams
from aiokafka.errors import KafkaError
from faust.types import TP, Message
from faust.types.tuples import FutureMessage
from mode import Service

from payment_service.agents.consumer import COMMIT_TIMEOUT_S, PaymentConsumer, PaymentTransport, RecordFeed
from payment_service.agents.durable_table import DurableTable, delivered, event_at, writes_of_event
from payment_service.agents.fetch_pace import gap_s
from payment_service.agents.records import Record

COMMIT_INTERVAL_S = 0.5
HEARTBEAT_S = 1.0
"""A worker hears of a rebalance with its next heartbeat. At 3 s the partitions of one that was killed were taken over
2.8 s after the session time-out (measured)."""
REQUEST_TIMEOUT_S = 30.0
METADATA_AGE_S = 5.0
"""Faust asks every 5 minutes. Who joins the group while the broker does not know the topics (seen right after its
restart) is given nothing, and hears of them with the next answer alone."""
WATCH_INTERVAL_S = 1.0
LAG_INTERVAL_S = 10.0
"""OCI Streaming answers few requests a second."""
LAG_TIMEOUT_S = 5.0
PRODUCER_BATCH_BYTES_MAX = 131_072
PRODUCER_BATCH_BYTES_MIN = 16_384
REQUEST_BYTES = 900_000
"""A batch of every partition may be in one request, of which OCI Streaming takes 1 MB."""


class StreamStuck(Exception):
    """Nothing moves any more although there is work: the stream side must be started anew."""


class PaymentMonitor(faust.Monitor):
    """Faust's monitor without the callbacks that cost time for every event."""

    def on_message_in(self, tp: TP, offset: int, message: Message) -> None: ...

    def on_stream_event_in(self, tp: TP, offset: int, stream: Any, event: Any) -> dict[str, Any] | None: ...

    def on_stream_event_out(
        self, tp: TP, offset: int, stream: Any, event: Any, state: dict[str, Any] | None = None
    ) -> None: ...

    def on_message_out(self, tp: TP, offset: int, message: Message) -> None: ...

    def track_tp_end_offset(self, tp: TP, offset: int) -> None: ...


class PaymentTopic(faust.Topic):
    """A topic where a record that cannot be sent fails alone; in Faust it ends the whole producer."""

    def get_topic_name(self) -> str:
        """Also of several: Faust raises, and its command `agents` with it. Nobody sends to such a topic."""
        return ", ".join(self.topics) if len(self.topics) > 1 else super().get_topic_name()

    async def publish_message(self, fut: FutureMessage, wait: bool = False) -> Awaitable[Any]:
        try:
            return await super().publish_message(fut, wait)
        except KafkaError as exc:
            if not fut.done():
                fut.set_exception(exc)
            return fut


class PointingWorker(faust.Worker):
    """What `faust worker` starts: nothing. Our worker has REST and the publisher beside the streams."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sys.stderr.write("Faust's worker would run the streams alone. Start it with: payment-service worker\n")
        raise SystemExit(2)


class PaymentApp(faust.App):
    """One stream side: started in a loop of ours, ended by stop() or a crash, never started a second time.

    Limits: `drain_s` bounds the wait for started work at a rebalance and at the end, `stuck_after_s` how long
    a partition, a rebalance or the fetching may stand still before the app crashes with StreamStuck.
    """

    consumer_generation_id: int

    def __init__(
        self,
        *args: Any,
        topic_prefix: str,
        drain_s: float,
        stuck_after_s: float,
        fetch_gap_s: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.topic_prefix = topic_prefix
        self.drain_s = drain_s
        self.stuck_after_s = stuck_after_s
        self.fetch_gap_s = fetch_gap_s
        self.feeds: list[RecordFeed] = []
        self.feed_of: dict[str, RecordFeed] = {}
        self.on_lag: Callable[[str, str, int], None] = lambda stream, topic, lag: None
        """Told of each fed topic how many records of this worker's partitions are not finished."""
        self._settled_at_s = monotonic()
        super().__init__(*args, **kwargs)

    def raw_topic(self, *names: str) -> Any:
        """Topics that come in, named without the prefix; raw bytes, for value_type=bytes alone means JSON."""
        return self.topic(
            *(self.topic_prefix + name for name in names),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            internal=self.conf.topic_allow_declare,
            partitions=self.conf.topic_partitions,
        )

    def add_feed(self, feed: RecordFeed, record_topics: Iterable[str]) -> None:
        """Let the feed take part in rebalances, drains and the watch.

        Records of `record_topics` (full names, prefix included) go to it directly, past Faust's streams.
        """
        self.feeds.append(feed)
        for topic in record_topics:
            if topic in self.feed_of:
                raise ValueError(f"topic {topic} is fed already: one agent for each input topic")
            self.feed_of[topic] = feed

    @asynccontextmanager
    async def durable_writes(self, record: Record) -> AsyncIterator[None]:
        """Table writes that belong to a record; leaving the block waits until the broker has all of them.

        Table and topic need the same number of partitions: a write goes to the record's partition number.

        Raises: Unavailable (the same writes again), Malformed (a value does not fit a message).
        Limits: CHANGELOG_TIMEOUT_S.
        """
        tp = TP(record.topic, record.partition)
        event = event_at(self, tp, record.offset, record.timestamp_ms / 1000)
        writes: list[FutureMessage] = []
        tokens = writes_of_event.set(writes), faust.streams._current_event.set(weakref.ref(event))
        try:
            yield
        finally:
            writes_of_event.reset(tokens[0])
            faust.streams._current_event.reset(tokens[1])
        await delivered(writes)

    async def start(self) -> None:
        self.finalize()
        await super().start()

    async def on_first_start(self) -> None:
        if faust.streams._CStreamIterator is None:
            raise RuntimeError(
                "faust-streaming runs without its compiled parts (no binary wheel, or NO_CYTHON is set): its "
                "pure Python stream acknowledges events of an old assignment that nobody handled."
            )
        await super().on_first_start()

    def _create_directories(self) -> None:
        Path(self.conf.datadir).mkdir(parents=True, exist_ok=True)
        super()._create_directories()

    def discard(self) -> None:
        """Close the event loop that a consumer makes for its thread, of an app that was never started.

        Faust makes a consumer even for agent.test_context(); stop() closes it only after a start.
        """
        consumer = self._consumer
        if isinstance(consumer, PaymentConsumer) and not self.started:
            consumer._thread.thread_loop.close()

    def _new_transport(self) -> PaymentTransport:
        return PaymentTransport(self.conf.broker_consumer, self)

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        """On a rebalance and at the end. Faust's own waits without limit for events nobody works on."""
        for feed in self.feeds:
            feed.suspend()
        ended = await asyncio.gather(*(feed.drain(self.drain_s) for feed in self.feeds))
        if not all(ended):
            self.log.warning("Started work did not end in %r s; its events will come again", self.drain_s)
        await consumer.commit_now()
        for feed in self.feeds:
            feed.forget()

    async def _producer_flush(self, logger: Any) -> None:
        if self._producer is not None and self._producer.state == "running":  # after a crash it is not
            await super()._producer_flush(logger)

    @Service.task
    async def _watch_streams(self) -> None:
        while not self.should_stop:
            await self.sleep(WATCH_INTERVAL_S)
            standstill = self._standstill()
            if standstill and not self.should_stop:
                await self.crash(StreamStuck(standstill))

    @Service.task
    async def _watch_lag(self) -> None:
        while not self.should_stop:
            await self.sleep(LAG_INTERVAL_S)
            consumer = self._consumer
            if not isinstance(consumer, PaymentConsumer) or self.rebalancing:
                continue
            try:
                async with asyncio.timeout(LAG_TIMEOUT_S):
                    lags = await consumer.lags(self.feed_of)
                for topic, lag in lags.items():
                    self.on_lag(self.feed_of[topic].name, topic, lag)
            except (KafkaError, AssertionError, KeyError, TimeoutError) as exc:  # away, or revoked meanwhile
                self.log.info("The lag is not known now: %r", exc)

    def _standstill(self) -> str | None:
        now = monotonic()
        for feed in self.feeds:
            stuck_s = feed.observe()
            if stuck_s > self.stuck_after_s:
                return f"{feed.name}: no progress for {stuck_s:.0f} s although events are open"
        consumer = self._consumer
        if not self.rebalancing or self.in_recovery:  # reading a large table back takes as long as it takes
            self._settled_at_s = now
        elif now - self._settled_at_s > self.stuck_after_s:
            return f"rebalancing for {now - self._settled_at_s:.0f} s"
        if isinstance(consumer, PaymentConsumer):
            if self.rebalancing or not consumer.flow_active:
                consumer.polled_at_s = now
            elif now - consumer.polled_at_s > self.stuck_after_s:
                return f"no fetch for {now - consumer.polled_at_s:.0f} s"
        return None


ALWAYS: dict[str, Any] = {
    "autodiscover": False,
    "web_tables_enabled": False,
    "web_router_enabled": False,
    "topic_disable_leader": True,
    "processing_guarantee": "at_least_once",
    "stream_wait_empty": False,
    "stream_buffer_maxsize": 16_384,
    "stream_publish_on_commit": False,
    "cython_optimizations": False,
    "broker_commit_interval": COMMIT_INTERVAL_S,
    "broker_request_timeout": REQUEST_TIMEOUT_S,
    "consumer_auto_offset_reset": "earliest",
    "consumer_metadata_max_age_ms": int(METADATA_AGE_S * 1000),
    "producer_acks": -1,
    "producer_request_timeout": REQUEST_TIMEOUT_S,
    "producer_linger": 0,
    "producer_threaded": False,
    "worker_redirect_stdouts": False,
    "Worker": PointingWorker,
    "Monitor": PaymentMonitor,
    "Topic": PaymentTopic,
    "Table": DurableTable,
}
"""Settings that do not depend on where we run; said even where they are Faust's own today."""


def _batch_bytes(partitions: int) -> int:
    return min(PRODUCER_BATCH_BYTES_MAX, max(PRODUCER_BATCH_BYTES_MIN, REQUEST_BYTES // partitions))


def stream_app(
    name: str,
    brokers: str,
    *,
    topic_prefix: str,
    partitions: int,
    create_topics: bool,
    instance_id: str | None,
    datadir: str,
    credentials: Any = None,
    store: str = "memory://",
    web_enabled: bool = False,
    session_timeout_s: float = 10.0,
    rebalance_timeout_s: float = 30.0,
    drain_s: float = 10.0,
    stuck_after_s: float = 120.0,
    replication: int = 1,
    fetches_per_s: float = 0.0,
) -> PaymentApp:
    """A new stream side. `brokers`: "host:port,host:port". `credentials`: faust.SASLCredentials or SSL ones.

    `instance_id` (static membership) only where it is unique for each process: two with one name fence each
    other. Limits: drain_s must leave room inside the rebalance timeout, or the broker gives our partitions
    away while we still work on them. `fetches_per_s`: of one partition, 0 for no limit.
    """
    if drain_s + COMMIT_TIMEOUT_S * 2 > rebalance_timeout_s:
        raise ValueError("drain_s and two commits must fit into rebalance_timeout_s")
    return PaymentApp(
        topic_prefix + name,
        topic_prefix=topic_prefix,
        drain_s=drain_s,
        stuck_after_s=stuck_after_s,
        fetch_gap_s=gap_s(fetches_per_s),
        producer_max_batch_size=_batch_bytes(partitions),
        broker=[f"kafka://{broker.strip()}" for broker in brokers.split(",")],
        broker_credentials=credentials,
        store=store,
        datadir=datadir,
        web_enabled=web_enabled,
        topic_allow_declare=create_topics,
        topic_partitions=partitions,
        topic_replication_factor=replication,
        table_standby_replicas=0 if store.startswith("memory:") else 1,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=min(HEARTBEAT_S, session_timeout_s / 3),
        broker_rebalance_timeout=rebalance_timeout_s,
        consumer_group_instance_id=instance_id,
        **ALWAYS,
    )
