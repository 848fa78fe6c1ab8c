"""Saved ways to pay: the MethodStore port over `payment_methods` and `provider_customers`.

Room: adapters/postgres. What is charged is sealed, with the row's id bound in, and found again by a digest. Limit and
default are per user and change under a lock of the user's, held for one message to the server.
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from payment_service.adapters.postgres import arrays as a
from payment_service.adapters.postgres.batching import Batches, Waiting, answer_all
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import NAMES, QUERIES
from payment_service.codecs.methods import decode_method_secrets, encode_method_secrets
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.payment_method import METHODS_MAX, Card, Method, MethodStatus, Usable
from payment_service.core.ports import Cipher

TRIES_MAX = 2
"""Each statement may be repeated: the second time it finds what the first did."""
STATEMENT_S = 5.0
"""A caller waits."""
LOOKUPS_MAX = 500
LOOKUP_BYTES_MAX = 256 * 1024
QUEUE_MAX = 20_000
"""Look-ups in one statement, and waiting for one, as the payment store has them: each order may make one."""
READERS = 2

_log = logging.getLogger(__name__)
_COLUMNS = QUERIES["method_columns"].partition("\n")[2]
_LOCKED = frozenset({"begin_method", "settle_method", "set_default_method"})
_Lookup = Waiting[tuple[str, str | None], Usable | None]


def secrets_place(method_id: str) -> str:
    return f"payment_methods.secrets:{method_id}"


def customer_place(user_id: str, provider: str) -> str:
    return f"provider_customers.customer:{provider}:{user_id}"


def _digest(token: str | None) -> bytes | None:
    return None if token is None else sha256(token.encode()).digest()


class PostgresMethods:
    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self._lookups: Batches[tuple[str, str | None], Usable | None] = Batches(
            self._look_up, lambda lookup: lookup.fail(Unavailable("the store is closed")),
            workers=READERS, batch_max=LOOKUPS_MAX, bytes_max=LOOKUP_BYTES_MAX, queue_max=QUEUE_MAX,
        )  # fmt: skip

    async def close(self, drain_s: float) -> None:
        await self._lookups.close(drain_s)

    # --- saving ----------------------------------------------------------------------------------------------

    async def begin(self, method: Method, limit: int, lease_s: float) -> Method:
        _refuse_unstorable(method.user_id)
        user_id, given = method.user_id, _digest(_storable(method.secrets.given or method.method_id))
        rows = await self._run("begin_method", user_id, (
            user_id, method.provider, given, method.method_id, user_id, method.provider, method.type,
            method.status.value, method.wants_default, given, self._sealed(method), method.created_at_ms, lease_s,
            user_id, limit,
        ))  # fmt: skip
        if not rows:
            raise Refused(f"a user has at most {limit} payment methods", code="INVALID_STATE")
        return self._method(rows[0])

    async def settle(self, method: Method, due_s: float | None = None) -> Method | None:
        card, status = method.card, method.status.value
        rows = await self._run("settle_method", method.user_id, (
            status, method.method_id, status, card.brand, card.last4, card.exp_month, card.exp_year,
            _digest(method.secrets.token), self._sealed(method), due_s,
        ))  # fmt: skip
        return self._method(rows[0]) if rows else None

    async def forget(self, method: Method) -> None:
        await self._run("forget_method", None, (method.method_id, method.status.value))

    # --- its user --------------------------------------------------------------------------------------------

    async def listed(self, user_id: str) -> list[Method]:
        if not a.is_storable(user_id):
            return []
        return [self._method(row) for row in await self._run("list_methods", None, (user_id, METHODS_MAX))]

    async def find(self, user_id: str, method_id: str) -> Method | None:
        if not a.is_storable(user_id + method_id):
            return None
        rows = await self._run("find_method", None, (method_id, user_id))
        return self._method(rows[0]) if rows else None

    async def set_default(self, user_id: str, method_id: str) -> Method | None:
        if not a.is_storable(user_id + method_id):
            return None
        rows = await self._run("set_default_method", user_id, (method_id, user_id))
        return self._method(rows[0]) if rows else None

    async def remove(self, user_id: str, method_id: str) -> bool:
        if not a.is_storable(user_id + method_id):
            return False
        try:
            return bool(await self._once("remove_method", (method_id, user_id, False)))
        except (ConnectionLost, TryAgain):
            return bool(await self._run("remove_method", None, (method_id, user_id, True)))

    # --- charging --------------------------------------------------------------------------------------------

    async def usable(self, user_id: str, method_id: str | None) -> Usable | None:
        if not a.is_storable(user_id + (method_id or "")):
            return None
        return await self._lookups.put((user_id, method_id), None, len(user_id) + 100)

    async def _look_up(self, batch: list[_Lookup]) -> None:
        users = a.texts([one.item[0] for one in batch])
        ids = a.optional_texts([one.item[1] for one in batch])
        try:
            rows = await self._run("usable_methods", None, (users, ids, users, ids), hot=True)
        except Unavailable as error:
            answer_all(batch, error)
            return
        found = {
            (user_id, asked): (method_id, provider, sealed) for user_id, asked, method_id, provider, sealed in rows
        }
        for one in batch:
            row = found.get(one.item)
            try:
                one.answer(None if row is None else self._usable(*row))
            except Malformed as error:  # it alone: the others of the batch are well
                one.fail(error)

    def _usable(self, method_id: str, provider: str, sealed: Any) -> Usable:
        secrets = decode_method_secrets(self._cipher.unseal(bytes(sealed), secrets_place(method_id)))
        assert secrets.token is not None, "an ACTIVE one has what is charged"
        return Usable(method_id, provider, secrets.token, secrets.customer)

    # --- the sweep -------------------------------------------------------------------------------------------

    async def claim(self, limit: int, lease_s: float) -> list[Method]:
        claimed: list[Method] = []
        for row in await self._run("claim_methods", None, (limit, lease_s)):
            try:
                claimed.append(self._method(row))
            except Malformed as error:
                # It comes back with every lease, and is heard of each time; it must not hold up the others.
                _log.error("the secrets of %s cannot be read: %s", row[0], type(error).__name__)
        return claimed

    async def later(self, method: Method, delay_s: float) -> None:
        parameters = (delay_s, method.method_id, method.status.value, method.tries)
        await self._run("postpone_method", None, parameters)

    # --- the provider's news ---------------------------------------------------------------------------------

    async def detached(self, provider: str, token: str) -> int:
        return len(await self._run("detached_methods", None, (_digest(_storable(token)), provider)))

    async def card_changed(self, provider: str, token: str, card: Card) -> int:
        for text in (card.brand, card.last4):
            _refuse_unstorable(text or "")
        parameters = (card.brand, card.last4, card.exp_month, card.exp_year, _digest(_storable(token)), provider)
        return len(await self._run("change_cards", None, parameters))

    async def customer_of(self, user_id: str, provider: str) -> str | None:
        rows = await self._run("customer_of", None, (user_id, provider))
        return self._cipher.unseal(bytes(rows[0][0]), customer_place(user_id, provider)).decode() if rows else None

    async def keep_customer(self, user_id: str, provider: str, customer: str) -> None:
        sealed = self._cipher.seal(customer.encode(), customer_place(user_id, provider))
        await self._run("keep_customer", None, (user_id, provider, sealed))

    # --- rows ------------------------------------------------------------------------------------------------

    def _sealed(self, method: Method) -> bytes:
        return self._cipher.seal(encode_method_secrets(method.secrets), secrets_place(method.method_id))

    def _method(self, row: Sequence[Any]) -> Method:
        """Raises Malformed: changed, moved, or sealed with a key we do not have."""
        method_id, user_id, provider, kind, status, created_ms, is_default, wants, *card, tries, sealed = row
        secrets = decode_method_secrets(self._cipher.unseal(bytes(sealed), secrets_place(method_id)))
        return Method(
            method_id, user_id, provider, kind, MethodStatus(status), created_ms, is_default, wants, Card(*card), tries,
            secrets,
        )  # fmt: skip

    async def _run(
        self, name: str, user_id: str | None, parameters: tuple[Any, ...], *, hot: bool = False
    ) -> list[Any]:
        """`user_id`: under this user's lock."""
        error: Exception | None = None
        for _ in range(TRIES_MAX):
            try:
                return await self._once(name, parameters, user_id, hot=hot)
            except (ConnectionLost, TryAgain) as again:
                error = again
        _log.warning("payment methods: %s was not done: %s", name, type(error).__name__)
        raise Unavailable("the table of payment methods did not answer")

    async def _once(
        self, name: str, parameters: tuple[Any, ...], user_id: str | None = None, *, hot: bool = False
    ) -> list[Any]:
        """Raises ConnectionLost, TryAgain, Unavailable."""
        text = _TEXTS[name]
        assert (user_id is not None) == (name in _LOCKED), "what is per user is locked, and nothing else"
        if user_id is not None:
            parameters = (user_id, *parameters)
        try:
            return await self._database.fetch(text, parameters, STATEMENT_S, hot=hot)
        except StatementRefused as refused:
            _log.error("payment methods: %s was refused: %s", name, refused)
            raise Unavailable("the table of payment methods did not answer") from None


def _text(name: str) -> str:
    text = QUERIES[name].replace("{columns}", _COLUMNS)
    return f"{QUERIES['lock_user_methods']};\n{text}" if name in _LOCKED else text


_TEXTS = {
    name: _text(name)
    for name in (
        "begin_method", "settle_method", "list_methods", "find_method", "usable_methods", "set_default_method",
        "remove_method", "forget_method", "claim_methods", "postpone_method", "detached_methods", "change_cards",
        "customer_of", "keep_customer",
    )
}  # fmt: skip
NAMES.update((text, name) for name, text in _TEXTS.items())


def _refuse_unstorable(text: str) -> None:
    if not a.is_storable(text):
        raise Refused("contains text that cannot be stored", code="VALIDATION_ERROR")


def _storable(text: str) -> str:
    _refuse_unstorable(text)
    return text
