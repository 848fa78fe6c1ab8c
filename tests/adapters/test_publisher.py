"""In which order events go out and rows may go: the pure rule, under a sender that answers when the test says."""

import random
from collections import defaultdict

import pytest
from aiokafka.partitioner import murmur2

from payment_service.adapters.kafka_message import partition_hash, partition_hashes
from payment_service.adapters.publish_order import PaymentQueue, Place, PublishOrder
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import OutboxRow


def row(payment: str, sequence: int, shard: int = 0, topic: str = "payment.created") -> OutboxRow:
    return OutboxRow(shard, payment, sequence, topic, 1_000, None, b"{}")


class Rig:
    """A sender and a table that keep what they are handed."""

    def __init__(self, rows_max: int = 100) -> None:
        self.sent: list[tuple[str, int]] = []
        self.unacked: list[PaymentQueue] = []
        self.to_delete: list[tuple[PaymentQueue, OutboxRow]] = []
        self.blocked: set[str] = set()
        self.order = PublishOrder(self._hand_over, self._delete, lambda topic: topic in self.blocked, rows_max)

    def _hand_over(self, queue: PaymentQueue, it: OutboxRow) -> None:
        assert not queue.abandoned
        self.sent.append((it.payment_id, it.sequence))
        self.unacked.append(queue)

    def _delete(self, queue: PaymentQueue, it: OutboxRow) -> None:
        self.to_delete.append((queue, it))

    def offer(self, *rows: OutboxRow, direct: bool = True) -> dict[Place, set[int]]:
        return self.order.add([(it, direct) for it in rows])

    def ack(self, number: int = 0) -> None:
        self.order.acked(self.unacked.pop(number))

    def delete(self) -> list[tuple[str, int]]:
        gone, self.to_delete = self.to_delete, []
        for queue, _ in gone:
            self.order.deleted(queue)
        return [(it.payment_id, it.sequence) for _, it in gone]


def test_one_event_of_a_payment_is_under_way_and_the_next_follows_its_ack() -> None:
    rig = Rig()
    rig.offer(row("a", 1), row("a", 2), row("b", 1))
    assert rig.sent == [("a", 1), ("b", 1)]
    rig.ack()
    assert rig.sent[2:] == [("a", 2)]


def test_no_row_may_go_before_its_ack() -> None:
    rig = Rig()
    rig.offer(row("a", 1), row("b", 1))
    assert rig.delete() == []
    rig.ack(1)
    assert rig.delete() == [("b", 1)]


def test_an_event_without_an_ack_holds_back_its_payment_alone() -> None:
    rig = Rig()
    rig.offer(*(row(payment, sequence) for payment in "ab" for sequence in (1, 2, 3)))
    for _ in range(3):
        rig.ack(1)  # always b's: a's first stays unanswered
    assert rig.sent == [("a", 1), ("b", 1), ("b", 2), ("b", 3)]
    assert rig.delete() == [("b", 1), ("b", 2), ("b", 3)]


def test_a_row_with_something_older_in_the_table_waits_to_be_read() -> None:
    rig = Rig()
    assert rig.offer(row("a", 3), direct=False) == {Place.LEFT: {0}}
    assert rig.sent == []
    rig.order.add([(row("a", 2), True), (row("a", 3), True)])  # as it is read
    assert rig.sent == [("a", 2)]


def test_a_row_that_follows_one_in_hand_need_not_be_read() -> None:
    rig = Rig()
    rig.offer(row("a", 1))
    assert rig.offer(row("a", 2), direct=False) == {Place.TAKEN: {0}}
    rig.ack()
    rig.ack()
    assert rig.offer(row("a", 3), direct=False) == {Place.TAKEN: {0}}, "2 is acked and not yet deleted"
    assert rig.sent == [("a", 1), ("a", 2), ("a", 3)]


def test_a_hole_is_never_jumped_over() -> None:
    rig = Rig()
    rig.offer(row("a", 1))
    assert rig.offer(row("a", 3), direct=False) == {Place.LEFT: {0}}
    rig.ack()
    assert rig.sent == [("a", 1)]


def test_rows_in_hand_are_known_when_they_are_read_again() -> None:
    rig = Rig()
    rig.offer(row("a", 1), row("a", 2))
    rig.ack()
    assert rig.offer(row("a", 1), row("a", 2)) == {Place.KNOWN: {0}}
    assert rig.sent == [("a", 1), ("a", 2)]
    rig.delete()
    rig.ack()
    rig.delete()
    assert rig.order.in_memory == 0
    assert not rig.order.busy(0)


def test_memory_is_bounded_and_what_is_left_comes_from_the_table() -> None:
    rig = Rig(rows_max=3)
    fates = rig.offer(row("a", 1), row("a", 2), row("b", 1), row("b", 2), row("c", 1, shard=1))
    assert fates[Place.FULL] | fates.get(Place.LEFT, set()) == {0, 1}
    assert rig.order.room == 0
    rig.ack()
    assert rig.order.room == 0, "an acked row counts until it is deleted"
    rig.delete()
    assert rig.offer(row("c", 1, shard=1)) == {Place.TAKEN: {1}}


def test_a_blocked_topic_starts_nothing_and_holds_back_what_follows_it() -> None:
    rig = Rig()
    rig.blocked.add("payment.created")
    fates = rig.offer(row("a", 1), row("a", 2, topic="payment.failed"), row("b", 5, topic="payment.failed"))
    assert rig.sent == [("b", 5)]
    assert fates == {Place.LEFT: {0}, Place.TAKEN: {0}}


def test_nothing_further_of_an_abandoned_shard_goes_out() -> None:
    rig = Rig()
    rig.offer(row("a", 1), row("a", 2), row("b", 1, shard=1), row("b", 2, shard=1))
    rig.order.abandon([0])
    assert rig.order.in_memory == 2
    rig.ack()  # a's first was under way: its row may go, its second is the new owner's
    rig.ack()
    assert rig.sent == [("a", 1), ("b", 1), ("b", 2)]
    assert rig.delete() == [("a", 1), ("b", 1)]
    rig.offer(row("a", 2))  # the shard is ours again
    assert rig.sent[-1] == ("a", 2)


@pytest.mark.parametrize("seed", range(30))
def test_first_deliveries_are_in_order_whatever_two_owners_do(seed: int) -> None:
    """Two processes that both believe to own the shard, rows committed all the time, acks in any order, reads and
    deletes at any time, ownership lost and found: each payment's first deliveries have no hole and no step back."""
    dice = random.Random(seed)
    table: dict[str, list[int]] = defaultdict(list)
    committed: dict[str, int] = defaultdict(int)
    delivered: dict[str, list[int]] = defaultdict(list)
    rigs = [Rig(rows_max=dice.choice((4, 50))) for _ in range(2)]

    def commit() -> None:
        payment, how_many = dice.choice("abcde"), dice.randint(1, 2)
        direct = not table[payment]
        rows = [row(payment, committed[payment] + 1 + n) for n in range(how_many)]
        committed[payment] += how_many
        table[payment] += [it.sequence for it in rows]
        if dice.random() < 0.8:
            dice.choice(rigs).offer(*rows, direct=direct)

    def read(rig: Rig) -> None:
        after, page = dice.choice(("", "a", "c")), dice.randint(1, 4)
        found = [(payment, it) for payment in sorted(table) if payment > after for it in table[payment]]
        rig.order.add([(row(payment, it), True) for payment, it in found[:page]])

    def step(rig: Rig) -> None:
        match dice.randint(0, 9):
            case 0 | 1 | 2:
                commit()
            case 3 | 4:
                read(rig)
            case 5 | 6 | 7 if rig.unacked:
                number = dice.randrange(len(rig.unacked))
                queue = rig.unacked[number]
                assert queue.handed is not None
                sequence = queue.handed.sequence
                if sequence not in delivered[queue.payment_id]:
                    delivered[queue.payment_id].append(sequence)
                rig.ack(number)
            case 8:
                for payment, it in rig.delete():
                    if it in table[payment]:
                        table[payment].remove(it)
            case 9 if dice.random() < 0.1:
                rig.order.abandon_all()

    for _ in range(3_000):
        step(dice.choice(rigs))
    for payment, sequences in delivered.items():
        assert sequences == list(range(1, len(sequences) + 1)), payment
    assert sum(len(it) for it in delivered.values()) > 50


def test_the_same_key_goes_to_the_same_partition_as_everywhere() -> None:
    dice = random.Random(7)
    for length in range(80):
        key = dice.randbytes(length)
        assert partition_hash(key) == murmur2(key) & 0x7FFFFFFF


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 1000, 1001, 2300])
def test_keys_that_are_hashed_side_by_side_too(count: int) -> None:
    dice = random.Random(count)
    keys = [payment_id_of(str(dice.random())).encode() for _ in range(count)]
    keys += [dice.randbytes(dice.randrange(60)) for _ in range(5)] + [b"\xff" * 36, b"\0" * 36] + keys[:3]
    assert partition_hashes(iter(keys)) == {key: murmur2(key) & 0x7FFFFFFF for key in keys}
