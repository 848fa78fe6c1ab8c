"""Saved ways to pay: save, list, default, remove; and which one a payment is charged with.

Room: core/use_cases. Awaits on ports only.

- Its row is there before the provider is asked, with the token that was given, sealed: what a crash leaves half done
  is finished by the sweep (sweep_methods.py), under the same key. One token makes one method, however often it is
  sent, so that a caller may simply send it again.
- Removing is our own commit; detaching at the provider follows at least once, also by the sweep.
- A charge gets the provider's token when it is committed (`usable`), not when it is sent: the request is sealed whole,
  so that a re-send is the same bytes whatever becomes of the method meanwhile. One that is removed between commit and
  sending was ordered before; if the provider has detached it by then, it says no, and the payment ends as declined.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Protocol

from payment_service.core.errors import Refused, Unavailable, invalid_field
from payment_service.core.frozen import dataclass
from payment_service.core.payment_method import (
    METHOD_GONE,
    METHODS_MAX,
    PREFIX,
    Card,
    Method,
    MethodAnswer,
    MethodCall,
    MethodKeeper,
    MethodSecrets,
    MethodStatus,
    MethodStore,
    Usable,
    is_saved,
)
from payment_service.core.ports import Answer, Clock, Metrics, NextAction
from payment_service.core.terms import Verdict
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.core.webhooks import MethodNews

PAYPAL = "paypal"
LEASE_S = 60.0
"""A method that is being saved is the sweep's after this: longer than a provider may take to answer."""
LOOK_S = 10.0
"""When one that waits for its shopper is first looked at, if nobody asks before."""
LOOKS_MAX = 3
"""How many of those a list asks the provider about; the others are shown as they were."""
UNKNOWN_DELAY_S = 5.0
"""When a saving whose answer was lost is asked about again."""


@dataclass(frozen=True, slots=True)
class ShownMethod:
    method: Method
    next_action: NextAction | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """Exactly one of `shown` and `declined`."""

    shown: ShownMethod | None
    created: bool = False
    """201: this request made it."""
    declined: Answer | None = None
    """402: the provider said no; nothing was saved."""


class MethodRequests(Protocol):
    """What a caller of REST may ask. Every method raises Refused (4xx; NOT_FOUND also for another user's) and
    Unavailable (503, nothing happened)."""

    async def save(
        self, caller: Caller, *, type: str, provider: str, token: str | None, is_default: bool, return_url: str | None
    ) -> Saved: ...

    async def listed(self, caller: Caller) -> Sequence[ShownMethod]: ...

    async def remove(self, caller: Caller, method_id: str) -> None: ...

    async def make_default(self, caller: Caller, method_id: str) -> Method: ...


class MethodFinder(Protocol):
    """What charging asks of them."""

    async def for_user(self, user_id: str, method_id: str) -> Usable:
        """Raises Refused: NOT_FOUND, or INVALID_STATE while it waits for something; Unavailable."""

    async def usable(self, user_id: str, method_id: str | None) -> Usable | None:
        """The same without asking anybody but the database; `method_id` None: the user's default."""


@dataclass(frozen=True, slots=True)
class PaymentMethods:
    store: MethodStore
    keepers: Mapping[str, MethodKeeper]
    """By provider, of those that keep methods."""
    clock: Clock
    metrics: Metrics
    new_id: Callable[[], str]
    """Random; without the prefix."""
    due: asyncio.Event = field(default_factory=asyncio.Event)
    """One was removed here: the sweep need not wait."""

    async def save(
        self, caller: Caller, *, type: str, provider: str, token: str | None, is_default: bool, return_url: str | None
    ) -> Saved:
        user_id = _user(caller)
        if provider not in self.keepers:
            raise Refused(f"payment methods of {provider} cannot be saved here", code="PROVIDER_NOT_CONFIGURED")
        if (type == PAYPAL) != (provider == "PAYPAL"):
            raise invalid_field("type", f"is not one of {provider}")
        if token is None and type != PAYPAL:
            raise invalid_field("token", "is required")
        if is_saved(token):
            raise invalid_field("token", "must be a token of the provider")
        asked = Method(
            f"{PREFIX}{self.new_id()}", user_id, provider, type, MethodStatus.PENDING, self.clock.now_ms(),
            wants_default=is_default, secrets=MethodSecrets(given=token, return_url=return_url),
        )  # fmt: skip
        before = await self._asked_before(asked) if token is None else None
        stored = before or await self.store.begin(asked, METHODS_MAX, LEASE_S)
        if stored.method_id == asked.method_id:
            return await self._save(stored)
        shown = await self.settled(stored)
        if shown is None:
            raise Refused("it was not confirmed: save it anew, with another token", code="INVALID_STATE")
        if is_default and shown.method.status is MethodStatus.ACTIVE and not shown.method.is_default:
            shown = ShownMethod(await self.make_default(caller, shown.method.method_id))
        return Saved(shown)

    async def _asked_before(self, asked: Method) -> Method | None:
        """What this user was sent to the provider for, from the same page, and has not approved: asking again leads
        there again."""
        for method in await self.store.listed(asked.user_id):
            waits = method.status in (MethodStatus.PENDING, MethodStatus.REQUIRES_ACTION)
            same = (method.provider, method.secrets.return_url) == (asked.provider, asked.secrets.return_url)
            if waits and same and method.secrets.given is None:
                return method
        return None

    async def _save(self, method: Method) -> Saved:
        answer = await self.ask_to_keep(method)
        match answer.verdict:
            case Verdict.DECLINED:
                await self.store.forget(method)
                if answer.code == METHOD_GONE:
                    raise invalid_field("token", "is none that the provider can save")
                return Saved(None, declined=answer)
            case Verdict.NOT_SENT:
                await self.store.forget(method)
                raise Unavailable("the provider cannot be reached", code="PROVIDER_UNAVAILABLE", retry_after_s=5.0)
            case _:
                return Saved(await self.record(method, answer) or ShownMethod(method), created=True)

    async def listed(self, caller: Caller) -> Sequence[ShownMethod]:
        """Those that wait for the shopper are asked about first: this is what a page shows after the shopper's
        return."""
        methods = await self.store.listed(_user(caller))
        waiting = [one for one in methods if one.status is MethodStatus.REQUIRES_ACTION][:LOOKS_MAX]
        looked = await asyncio.gather(*map(self.settled, waiting))
        now = {one.method_id: shown for one, shown in zip(waiting, looked, strict=True)}
        shown = [now.get(one.method_id, ShownMethod(one)) for one in methods]
        return [one for one in shown if one is not None]

    async def remove(self, caller: Caller, method_id: str) -> None:
        """When it was the default, there is none until the user names another: no card is charged by itself that
        nobody chose for that."""
        user_id = _user(caller)
        if not await self.store.remove(user_id, method_id):
            raise await self._why_not(user_id, method_id)
        self.metrics.count("methods_removed", reason="user")
        self.due.set()

    async def make_default(self, caller: Caller, method_id: str) -> Method:
        user_id = _user(caller)
        method = await self.store.set_default(user_id, method_id)
        if method is None:
            raise await self._why_not(user_id, method_id)
        return method

    async def _why_not(self, user_id: str, method_id: str) -> Refused:
        found = await self.store.find(user_id, method_id)
        return _not_found() if found is None else _not_ready()

    # --- for payments ----------------------------------------------------------------------------------------

    async def usable(self, user_id: str, method_id: str | None) -> Usable | None:
        return await self.store.usable(user_id, method_id)

    async def for_user(self, user_id: str, method_id: str) -> Usable:
        found = await self.store.usable(user_id, method_id)
        if found is not None:
            return found
        method = await self.store.find(user_id, method_id)
        if method is not None and method.status is MethodStatus.REQUIRES_ACTION:
            await self.settled(method)  # confirmed a moment ago, perhaps
            found = await self.store.usable(user_id, method_id)
        if found is not None:
            return found
        raise _not_found() if method is None else _not_ready()

    # --- what the provider says, also for the sweep ----------------------------------------------------------

    async def ask_to_keep(self, method: Method) -> MethodAnswer:
        secrets = method.secrets
        if secrets.customer is None:
            secrets = replace(secrets, customer=await self.store.customer_of(method.user_id, method.provider))
        answer = await self.keepers[method.provider].keep(MethodCall(method.method_id, method.user_id, secrets))
        self.metrics.count("methods_saved", provider=method.provider, verdict=answer.verdict)
        return answer

    async def settled(self, method: Method) -> ShownMethod | None:
        """As it is now, by its provider where it waits for the shopper. None: it is no more."""
        keeper = self.keepers.get(method.provider)
        if method.status is not MethodStatus.REQUIRES_ACTION or keeper is None:
            return ShownMethod(method)
        answer = await keeper.look(MethodCall(method.method_id, method.user_id, method.secrets))
        if answer.verdict is Verdict.DECLINED:
            await self.store.forget(method)
            self.metrics.count("methods_removed", reason="declined")
            return None
        return await self.record(method, answer)

    async def record(self, method: Method, answer: MethodAnswer) -> ShownMethod | None:
        """A yes, or what the shopper has to do. Anything else leaves it as it is. None: it was removed meanwhile."""
        secrets = answer.secrets
        if answer.verdict not in (Verdict.APPROVED, Verdict.PENDING) or secrets is None:
            if method.status is MethodStatus.PENDING:
                await self.store.later(method, UNKNOWN_DELAY_S)
            return ShownMethod(method)
        active = answer.verdict is Verdict.APPROVED
        status = MethodStatus.ACTIVE if active else MethodStatus.REQUIRES_ACTION
        if method.status is status:
            return ShownMethod(method, answer.next_action)
        if secrets.customer is not None:
            await self.store.keep_customer(method.user_id, method.provider, secrets.customer)
        changed = replace(method, status=status, card=answer.card, secrets=secrets)
        stored = await self.store.settle(changed, None if active else LOOK_S)
        if stored is None:  # somebody else was as fast, or its user removed it
            stored = await self.store.find(method.user_id, method.method_id)
        return None if stored is None else ShownMethod(stored, answer.next_action)

    async def changed_there(self, provider: str, news: MethodNews) -> None:
        """A provider's news of a method: by webhook. One that is not ours is nobody's business."""
        if news.detached:
            gone = await self.store.detached(provider, news.method_id)
            self.metrics.count("methods_removed", gone, reason="provider")
        else:
            card = Card(news.brand, news.last4, news.exp_month, news.exp_year)
            await self.store.card_changed(provider, news.method_id, card)


def _user(caller: Caller) -> str:
    if caller.user_id is None:
        raise Refused("payment methods belong to a user: send a user's token", code="FORBIDDEN")
    return caller.user_id


def _not_found() -> Refused:
    return Refused("no such payment method", code="NOT_FOUND")


def _not_ready() -> Refused:
    return Refused("the payment method is not confirmed yet", code="INVALID_STATE")
