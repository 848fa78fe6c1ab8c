"""Saved ways to pay: what they are, who keeps them for us, and what a payment needs of one.

Room: core. What is charged with (the provider's token, the customer it belongs to) is in `MethodSecrets` and `Usable`
alone: sealed wherever it is stored, never shown, never in an event or a log.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import field
from enum import StrEnum
from typing import Protocol

from payment_service.core.frozen import dataclass
from payment_service.core.ports import Answer

METHODS_MAX = 20
"""Saved methods of one user. Nobody needs more, and whoever tests stolen cards does."""
PREFIX = "pmt_"
"""Ids of saved methods are ours and may be shown; any other means of payment is a provider's own token, and secret."""
METHOD_GONE = "INVALID_PAYMENT_METHOD"
"""Why a charge is not made: its saved method was removed, is another user's or another provider's, or never was."""


_LEGACY_ID = re.compile(r"c[a-z0-9]{24}", re.ASCII)
"""The ids of the service before this one; no provider's token looks like it."""


def is_saved(method: str | None) -> bool:
    return method is not None and (method.startswith(PREFIX) or _LEGACY_ID.fullmatch(method) is not None)


def own_method_id(method: str | None) -> str | None:
    """A saved method by our own id, also where it was named as the service before this one had called it."""
    if method is None or _LEGACY_ID.fullmatch(method) is None:
        return method
    return PREFIX + hashlib.sha256(b"legacy-method:" + method.encode()).hexdigest()[:24]


class MethodStatus(StrEnum):
    PENDING = "PENDING"
    """Being saved; what the provider says is not known yet."""
    REQUIRES_ACTION = "REQUIRES_ACTION"
    """The shopper has to confirm it at the provider."""
    ACTIVE = "ACTIVE"
    REMOVED = "REMOVED"
    """Removed by its user and not yet detached at the provider; nobody sees it any more."""


@dataclass(frozen=True, slots=True)
class MethodSecrets:
    given: str | None = field(default=None, repr=False)
    """The token that it was made of, until the provider has answered. None: the provider asks its shopper for one."""
    token: str | None = field(default=None, repr=False)
    """What is charged."""
    customer: str | None = field(default=None, repr=False)
    """The provider's id of its user."""
    setup_id: str | None = field(default=None, repr=False)
    """The provider's object in which the shopper confirms it."""
    return_url: str | None = field(default=None, repr=False)
    approve_url: str | None = field(default=None, repr=False)
    """Where the shopper confirms it, for a provider that says so only once."""


@dataclass(frozen=True, slots=True)
class Card:
    """What may be shown, as the provider says it."""

    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None


NO_CARD = Card()


@dataclass(frozen=True, slots=True)
class Method:
    method_id: str
    user_id: str
    provider: str
    type: str
    status: MethodStatus
    created_at_ms: int
    is_default: bool = False
    wants_default: bool = False
    """It becomes the default once it is ACTIVE."""
    card: Card = NO_CARD
    tries: int = 0
    """How often somebody has claimed it. Fences: an older claim changes nothing."""
    secrets: MethodSecrets = field(default=MethodSecrets(), repr=False)


@dataclass(frozen=True, slots=True)
class Usable:
    """What a charge needs of a saved method."""

    method_id: str
    provider: str
    token: str = field(repr=False)
    customer: str | None = field(default=None, repr=False)


# --- the provider's side -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodCall:
    """What a provider is asked about one method. Idempotent by `key`, which is the method's id."""

    key: str
    user_id: str
    secrets: MethodSecrets = field(repr=False)


@dataclass(frozen=True, slots=True)
class MethodAnswer(Answer):
    """APPROVED: kept (or detached). PENDING: the shopper has to act, or the provider will say later. DECLINED: it is
    not kept, and never will be from this token. `provider_id` and `object_id` stay empty: here they are secrets."""

    secrets: MethodSecrets | None = field(default=None, repr=False)
    """With APPROVED and PENDING: what was known before, and what the provider said."""
    card: Card = NO_CARD


class MethodKeeper(Protocol):
    """A provider's side of saved methods, for those that have one. No method raises for what the provider says."""

    async def keep(self, call: MethodCall) -> MethodAnswer:
        """Make a method of the token in `secrets.given`, for this user's customer, who is made once."""

    async def look(self, call: MethodCall) -> MethodAnswer:
        """How the one that waits for its shopper stands. UNKNOWN: as before, as far as is known."""

    async def detach(self, call: MethodCall) -> MethodAnswer:
        """It can never be charged again. APPROVED also when it is detached already."""


# --- our own side --------------------------------------------------------------------------------------------------


class MethodStore(Protocol):
    """Every method raises Unavailable when the database is away; Refused for text that cannot be stored.

    `listed`, `find` and `usable` see no REMOVED ones, and what is another user's is not there.
    """

    async def begin(self, method: Method, limit: int, lease_s: float) -> Method:
        """`method`, now stored and due in `lease_s`; or the one that this user has of the same token already. Without
        a token it is always a new one.

        Raises Refused when the user has `limit` of them."""

    async def settle(self, method: Method, due_s: float | None = None) -> Method | None:
        """What became of one that is PENDING or REQUIRES_ACTION: status, card and secrets. ACTIVE and `wants_default`
        make it the default. None: it is neither any more, nothing was changed. `due_s`: when somebody looks next."""

    async def listed(self, user_id: str) -> Sequence[Method]:
        """The default first, then the newest. At most METHODS_MAX."""

    async def find(self, user_id: str, method_id: str) -> Method | None: ...

    async def usable(self, user_id: str, method_id: str | None) -> Usable | None:
        """An ACTIVE one; `method_id` None: the user's default."""

    async def set_default(self, user_id: str, method_id: str) -> Method | None:
        """None: there is no such ACTIVE one, and the default is as it was."""

    async def remove(self, user_id: str, method_id: str) -> bool:
        """ACTIVE or REQUIRES_ACTION -> REMOVED, due at once. False: there is none."""

    async def forget(self, method: Method) -> None:
        """The row goes, if it still has this status."""

    async def claim(self, limit: int, lease_s: float) -> Sequence[Method]:
        """Those that are due, each for one worker and `lease_s`."""

    async def later(self, method: Method, delay_s: float) -> None:
        """Not now. Nothing happens when somebody else has claimed it since."""

    async def detached(self, provider: str, token: str) -> int:
        """The provider says that it can never be charged again: the row goes. How many there were."""

    async def card_changed(self, provider: str, token: str, card: Card) -> int:
        """How many there were. What is None in `card` stays as it was."""

    async def customer_of(self, user_id: str, provider: str) -> str | None:
        """The provider's id of this user."""

    async def keep_customer(self, user_id: str, provider: str, customer: str) -> None:
        """From now on."""
