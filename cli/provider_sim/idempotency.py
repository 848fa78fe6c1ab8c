"""Answers kept under the keys they were asked with.

Room: cli/provider_sim. What a provider keeps, for how long, and what it says to a key that is used for something
else, is in the provider's file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from payment_service.cli.provider_sim.ledger import Ledger

Scope = tuple[str, str]
"""The provider (or a part of it, where keys are per endpoint) and the key."""


def fingerprint_of(*parts: object) -> str:
    """Of what was asked: a digest, so that no token is kept."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Kept:
    fingerprint: str
    status: int
    body: Any
    at_ms: int


class Idempotency:
    """Grows with the ledger; `prune` forgets, as a provider may."""

    def __init__(self, ledger: Ledger, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._kept: dict[Scope, Kept] = {}
        self.in_flight: set[Scope] = set()
        """Keys of requests that are being answered now; for providers that refuse a second one meanwhile."""

    def get(self, scope: str, key: str) -> Kept | None:
        return self._kept.get((scope, key))

    def keep(self, scope: str, key: str, fingerprint: str, status: int, body: Any) -> None:
        kept = self._kept[(scope, key)] = Kept(fingerprint, status, body, self._now_ms())
        self._ledger.add(
            {
                "line": "answer", "scope": scope, "key": key, "fingerprint": fingerprint,
                "status": status, "body": body, "at_ms": kept.at_ms,
            }
        )  # fmt: skip

    def prune(self, older_than_ms: int) -> int:
        """Forget what is older; how many that were."""
        before = self._now_ms() - older_than_ms
        gone = [scope for scope, kept in self._kept.items() if kept.at_ms <= before]
        for scope in gone:
            del self._kept[scope]
        self._ledger.add({"line": "pruned", "before_ms": before})
        return len(gone)

    def read_answer(self, line: dict[str, Any]) -> None:
        kept = Kept(line["fingerprint"], line["status"], line["body"], line["at_ms"])
        self._kept[(line["scope"], line["key"])] = kept

    def read_pruned(self, line: dict[str, Any]) -> None:
        self._kept = {scope: kept for scope, kept in self._kept.items() if kept.at_ms > line["before_ms"]}
