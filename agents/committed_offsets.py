"""The group's committed offsets of all partitions in one request.

Room: Kafka in. aiokafka asks for each partition by itself, one after another: at every start and rebalance twice as
many requests as there are partitions. OCI Streaming answers ten a second, and a broker that is far away takes its time.

Overrides private methods of aiokafka, read against aiokafka 0.14.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.consumer.fetcher import UNKNOWN_OFFSET
from faust.types import TP


async def seek_to_committed(consumer: Any) -> Mapping[TP, int | None]:
    """As AIOKafkaConsumer.seek_to_committed(): where nothing was committed the position stays as it is."""
    partitions = consumer._subscription.assigned_partitions()
    assert partitions, "No partitions are currently assigned"
    known = await consumer._coordinator.fetch_committed_offsets(list(partitions))
    offsets = {tp: known[tp].offset if tp in known else UNKNOWN_OFFSET for tp in partitions}
    for tp, offset in offsets.items():
        if offset > 0:
            consumer._fetcher.seek_to(tp, offset)
    return {tp: offset if offset >= 0 else None for tp, offset in offsets.items()}


def first_positions_at_once(consumer: Any) -> None:
    """Of an AIOKafkaConsumer that was started and has no assignment yet."""
    fetcher = consumer._fetcher
    update = fetcher._update_fetch_positions

    async def update_at_once(assignment: Any, node: int, tps: Iterable[TP]) -> bool:
        states = [assignment.state_value(tp) for tp in tps]
        unknown = [it for it in states if not _has_position(it)]
        try:
            answers = await asyncio.gather(*(it.fetch_committed() for it in unknown))
        except asyncio.CancelledError:  # the assignment is over: aiokafka's own ends like this too
            return False
        for state, committed in zip(unknown, answers, strict=True):
            if _has_position(state):
                continue
            if committed.offset == UNKNOWN_OFFSET:
                state.await_reset(fetcher._default_reset_strategy)
            else:
                state.reset_to(committed.offset)
        return bool(await update(assignment, node, tps))

    fetcher._update_fetch_positions = update_at_once


def _has_position(state: Any) -> bool:
    return bool(state.has_valid_position or state.awaiting_reset)
