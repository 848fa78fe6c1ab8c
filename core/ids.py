"""Ids that every process makes alike.

Room: core.
"""

import hashlib


def payment_id_of(order_id: str) -> str:
    """One order has one payment: two creators of the same order meet in the same id (contract §2)."""
    return "pay_" + hashlib.sha256(b"payment-of-order:" + order_id.encode()).hexdigest()[:32]


def shard_of(payment_id: str, shards: int) -> int:
    """The outbox shard of a payment. Never changes for a payment while `shards` does not."""
    return int(payment_id[-4:], 16) % shards
