"""What a provider's module shows of itself, and the codes that all providers share.

Room: adapters/providers. A new provider is a new file here with a `PROVIDER`; no list elsewhere changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aiohttp import ClientSession

from payment_service.core.payment_method import MethodKeeper
from payment_service.core.ports import Clock, Provider
from payment_service.core.use_cases.call_provider import KEY_REFUSED as KEY_REFUSED
from payment_service.core.use_cases.call_provider import OBJECT_GONE as OBJECT_GONE
from payment_service.core.webhooks import WebhookReader

SettingsT = TypeVar("SettingsT", contravariant=True)
"""The few settings that the provider reads: a Protocol in its own file."""

Sessions = Callable[[], ClientSession]
"""Gives the process's one HTTP session; called inside the running loop, at the first request."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A question that changes nothing, which the provider answers only to whom it knows (401 and 403: not us)."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    setting: str
    """The setting that has the key."""
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Registration(Generic[SettingsT]):
    name: str
    """As in a payment's `paymentProvider`: upper case."""
    configured: Callable[[SettingsT], bool]
    build: Callable[[SettingsT, Clock, Sessions], Provider]
    """Called only when it is configured; opens nothing."""
    rate_per_s: Callable[[SettingsT], float] | None = None
    """Requests a second that the account may make, over all workers; None: no limit is known."""
    webhooks: Callable[[SettingsT, Clock, Sessions], WebhookReader | None] | None = None
    """Gives None when the settings that verify its webhooks are missing."""
    methods: Callable[[SettingsT, Clock, Sessions], MethodKeeper] | None = None
    """None: it keeps no methods of payment for us."""
    hello: Callable[[SettingsT], Hello] | None = None
    """For `payment-service doctor`. None: it is in this process."""
    networked: bool | Callable[[SettingsT], bool] = True
    """False: in this process. It has no rate to keep, and its troubles are asked for by a test: no breaker."""


# --- codes of an Answer that mean the same for every provider -----------------------------------------------------
# The guard reads them: which mean that the provider is ill, which that we are too fast, which may be tried again.

CARD_DECLINED = "CARD_DECLINED"
PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
"""NOT_SENT: no connection, or the guard held it back. Certainly nothing reached the provider."""
PROVIDER_TIMEOUT = "PROVIDER_TIMEOUT"
"""UNKNOWN: sent, and no whole answer in time."""
PROVIDER_ERROR = "PROVIDER_ERROR"
"""UNKNOWN: it answered that it failed (5xx)."""
ADAPTER_ERROR = "ADAPTER_ERROR"
"""UNKNOWN: an exception came out of the adapter."""
RATE_LIMITED = "RATE_LIMITED"
"""NOT_SENT: the provider refused to look at it (429)."""
NOT_FOUND = "NOT_FOUND"
"""UNKNOWN, by a look-up: the provider does not know it, yet. Never NOT_SENT."""
OBJECT_NOT_OURS = "OBJECT_NOT_OURS"
"""DECLINED and closed: the provider object that the caller named (`adopted`) is not of this payment."""
NOT_UNDERSTOOD = "ANSWER_NOT_UNDERSTOOD"
"""UNKNOWN: a word, status or body that is in no table of ours."""
IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"
"""UNKNOWN: the key was used for something else. Our bug."""

TROUBLE = frozenset({PROVIDER_UNAVAILABLE, PROVIDER_TIMEOUT, PROVIDER_ERROR, ADAPTER_ERROR})
"""What counts as a failure of the provider; every other answer shows that it is well."""
UNANSWERED = TROUBLE | {RATE_LIMITED, KEY_REFUSED, NOT_UNDERSTOOD}
"""Codes of a look-up that says nothing about the call it asked for: nothing may be sent or cancelled because of it."""
REFUSED_US = frozenset({KEY_REFUSED, NOT_UNDERSTOOD})
"""Codes of a question that the provider does not answer us, though it is well."""


def unanswered_code(status: int) -> str:
    """Of the HTTP status of a question that got no answer."""
    if status == 429:
        return RATE_LIMITED
    if status in (401, 403):
        return KEY_REFUSED
    return NOT_UNDERSTOOD if 200 <= status < 500 else PROVIDER_UNAVAILABLE
