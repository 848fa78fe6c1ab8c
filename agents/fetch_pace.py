"""At most so many fetch requests a second for each partition, for brokers that count them.

Room: Kafka in. OCI Streaming allows a partition 5 a second in one consumer group. A fetch that waits for records ends
with the first of them, and aiokafka asks again at once: under a steady trickle that is a request for each record. A
partition has one leader, so a pause between the requests to one broker keeps the limit for all of its partitions.

Overrides a private method of aiokafka's fetcher, read against aiokafka 0.14.
"""

from time import monotonic
from typing import Any

MARGIN = 1.25
"""Networks and busy machines bunch requests together: slower than what is allowed, or some come too soon (seen)."""


def gap_s(fetches_per_s: float) -> float:
    """Least time between two fetch requests to one broker. 0: no limit."""
    return MARGIN / fetches_per_s if fetches_per_s else 0.0


def pace_fetches(consumer: Any, least_s: float) -> None:
    """Of an AIOKafkaConsumer that was started and has no assignment yet."""
    fetcher = consumer._fetcher
    actions_of = fetcher._get_actions_per_node
    turns: dict[int, float] = {}  # broker -> when it may be asked again

    def actions_in_turn(assignment: Any) -> tuple[Any, ...]:
        requests, resets, wait_s, *rest = actions_of(assignment)
        now, due = monotonic(), []
        for node, request in requests:
            left_s = turns.get(node, now) - now
            if left_s > 0:  # not held back as it is: what is to be asked may be more by then
                wait_s = min(wait_s, left_s)
            else:
                turns[node] = now + least_s
                due.append((node, request))
        return due, resets, wait_s, *rest

    fetcher._get_actions_per_node = actions_in_turn
