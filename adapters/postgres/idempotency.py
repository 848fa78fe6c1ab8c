"""Idempotency-Keys in PostgreSQL: their rows in the statement that commits what they started, their answers after it.

Room: adapters/postgres. Answers are sealed, with the key's digest bound in. Keeping answers is batched by itself: what
comes while one statement runs goes into the next.
"""

from collections.abc import Callable, Sequence
from typing import Any

from payment_service.adapters.postgres import arrays as a
from payment_service.adapters.postgres.batching import Batches, Waiting, answer_all
from payment_service.adapters.postgres.pool import Database, StatementRefused
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Unavailable
from payment_service.core.idempotency import Bound, RequestKey
from payment_service.core.ports import Change, Cipher

BATCH_MAX = 200
BATCH_BYTES_MAX = 256 * 1024
QUEUE_MAX = 5000
"""Answers that may wait to be kept; beyond it they go out unkept, and are told anew the next time."""
WRITERS = 1
TRIES_MAX = 2
"""Of a statement whose connection breaks, or that meets a deadlock: the second one finds what the first did."""
STATEMENT_S = 2.0
"""A caller waits for it."""

Column = Callable[[Any], str]
Rows = list[tuple[Any, ...]]
_KEY_COLUMNS: tuple[Column, ...] = (a.texts, a.texts, a.texts, a.texts, a.numbers, a.numbers)
_AGAIN_COLUMNS: tuple[Column, ...] = (a.texts, a.texts, a.texts, a.numbers, a.numbers, a.texts, a.numbers)


def answer_place(command_id: str) -> str:
    return f"idempotency_keys.answer:{command_id}"


def key_parts(changes: Sequence[Change]) -> list[tuple[str, Sequence[Column], Rows]]:
    """The parts of the statement that bind keys: (name of the query, its columns, its rows)."""
    new: Rows = []
    unchanged: Rows = []
    again: Rows = []
    for change in changes:
        bound, before = change.bound, change.loaded.bound
        if bound is None:
            continue
        command_id, fingerprint = bound.key.command_id, bound.key.fingerprint
        answered = int(bound.answered)
        if before is not None:
            idle = int(not change.steps)
            again.append((command_id, change.payment_id, bound.subject, bound.version, answered, before.subject, idle))
        else:
            row = (command_id, change.payment_id, fingerprint, bound.subject, bound.version, answered)
            (new if change.steps else unchanged).append(row)
    return [
        ("insert_keys", _KEY_COLUMNS, new),
        ("mark_keys", _KEY_COLUMNS, unchanged),
        ("bind_keys_again", _AGAIN_COLUMNS, again),
    ]


def bound_of(command_id: str, row: Sequence[Any], cipher: Cipher) -> Bound | None:
    """Of the columns that `load_with_keys` adds. Raises Malformed for an answer that cannot be unsealed."""
    fingerprint, subject, version, answered, sealed, age_s = row
    if fingerprint is None:
        return None
    answer = None if sealed is None else cipher.unseal(bytes(sealed), answer_place(command_id))
    return Bound(RequestKey(command_id, fingerprint), subject, version, answered, answer, age_s)


class PostgresKeys:
    """The KeptAnswers port, and what leaves by age."""

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self._answers: Batches[tuple[Bound, str], bytes | None] = Batches(
            self._keep_batch, lambda keep: keep.fail(Unavailable("the store is closed")),
            workers=WRITERS, batch_max=BATCH_MAX, bytes_max=BATCH_BYTES_MAX, queue_max=QUEUE_MAX,
        )  # fmt: skip

    async def close(self, drain_s: float) -> None:
        await self._answers.close(drain_s)

    async def keep(self, bound: Bound, answer: bytes | None) -> bytes | None:
        command_id = bound.key.command_id
        sealed = "" if answer is None else self._sealed(command_id, answer)
        return await self._answers.put((bound, sealed), command_id, 100 + len(sealed))

    async def find(self, key: RequestKey) -> Bound | None:
        found = await self._run("find_key", (key.command_id,))
        return bound_of(key.command_id, found[0], self._cipher) if found else None

    async def keep_unbound(self, key: RequestKey, subject: str, payment_id: str, answer: bytes) -> bool:
        about = payment_id if a.is_storable(payment_id) else ""
        sealed = self._sealed(key.command_id, answer)
        return bool(await self._run("keep_unbound", (key.command_id, about, key.fingerprint, subject, sealed)))

    async def remove_old_keys(self, age_s: float, limit: int) -> int:
        return len(await self._run("remove_old_keys", (age_s, limit)))

    async def remove_old_marks(self, age_s: float, limit: int) -> int:
        """Of the inbox."""
        return len(await self._run("remove_old_marks", (age_s, limit)))

    def _sealed(self, command_id: str, answer: bytes) -> str:
        return self._cipher.seal(answer, answer_place(command_id)).hex()

    async def _keep_batch(self, batch: list[Waiting[tuple[Bound, str], bytes | None]]) -> None:
        parameters = (
            a.texts([keep.item[0].key.command_id for keep in batch]),
            a.texts([keep.item[0].subject for keep in batch]),
            a.optional_words([keep.item[1] or None for keep in batch]),
        )
        try:
            kept = dict(await self._run("keep_answers", parameters))
        except Unavailable as error:
            answer_all(batch, error)
            return
        for keep in batch:
            command_id = keep.item[0].key.command_id
            sealed = kept.get(command_id)
            keep.answer(None if sealed is None else self._cipher.unseal(bytes(sealed), answer_place(command_id)))

    async def _run(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return await self._database.fetch_again(QUERIES[name], parameters, STATEMENT_S, tries=TRIES_MAX)
        except StatementRefused as refused:
            raise Unavailable(f"the database refuses {name}: {refused}") from None
