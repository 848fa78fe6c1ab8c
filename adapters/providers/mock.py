"""The mock: a provider inside the process, for development and tests. It takes no money and needs no network.

Amounts: integer minor units, as everywhere inside. Tokens decide the outcome, as Stripe's test tokens do (`VERDICTS`);
nothing is left to chance. Two steps as with real providers: the object (`mock_pi_…`), then what is done with it.
Retry rule: the same key gives the same answer and moves money once; a key used for something else is UNKNOWN with
IDEMPOTENCY_MISMATCH.

Its memory ends with the process. So that a development worker that was killed finds its payments again, a call about
an object it has no memory of is answered from the call alone, and the object is remembered anew from it:
- a look-up says what the token would have given; `tok_pending` has settled meanwhile; `tok_threeDSecure` waits for
  the shopper, and its page knows the payment again once it was looked up;
- a capture, void or refund is a yes, since what was authorized or captured is not known (core bounds it).
An object that is in memory is asked like a real provider: a key it never got is UNKNOWN, not "not sent".
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from payment_service.adapters.providers.registration import (
    CARD_DECLINED,
    IDEMPOTENCY_MISMATCH,
    NOT_FOUND,
    PROVIDER_ERROR,
    PROVIDER_TIMEOUT,
    Registration,
    Sessions,
)
from payment_service.core.ports import Answer, Clock, NextAction, ProviderCall
from payment_service.core.terms import TAKES_MONEY, Kind, Verdict

OBJECTS_MAX = 20_000
"""Provider objects in memory (about 1 KB each); beyond it the oldest settled one is forgotten."""
KEYS_MAX = 4 * OBJECTS_MAX
"""Answers in memory, over all objects."""

INVALID_METHOD = "INVALID_PAYMENT_METHOD"
OBJECT_CANCELLED = "OBJECT_CANCELLED"
INVALID_STATE = "INVALID_STATE"
AMOUNT_TOO_LARGE = "AMOUNT_TOO_LARGE"


class MockSettings(Protocol):
    """What the mock reads of the settings."""

    @property
    def mock_settle_ms(self) -> int: ...

    @property
    def mock_latency_ms(self) -> int: ...

    @property
    def public_url(self) -> str | None: ...

    @property
    def port(self) -> int: ...

    @property
    def is_production(self) -> bool: ...


def _build(settings: MockSettings, clock: Clock, sessions: Sessions) -> "MockProvider":
    return MockProvider(
        clock,
        public_url=settings.public_url or f"http://localhost:{settings.port}",
        settle_ms=settings.mock_settle_ms,
        latency_ms=settings.mock_latency_ms,
    )


PROVIDER: Registration[MockSettings] = Registration(
    name="MOCK",
    configured=lambda settings: not settings.is_production,
    build=_build,
    networked=False,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a token asks for. `answers` False: the provider stays silent for ever."""

    verdict: Verdict
    code: str = ""
    message: str = ""
    decline_code: str | None = None
    redirect: bool = False
    answers: bool = True


YES = Outcome(Verdict.APPROVED)
NO_SUCH_METHOD = Outcome(Verdict.DECLINED, INVALID_METHOD, "no such payment method")

VERDICTS: dict[str, Outcome] = {
    "tok_visa": YES,
    "tok_chargeDeclined": Outcome(Verdict.DECLINED, CARD_DECLINED, "the card was declined", "card_declined"),
    "tok_chargeDeclinedInsufficientFunds": Outcome(
        Verdict.DECLINED, CARD_DECLINED, "the card has insufficient funds", "insufficient_funds"
    ),
    "tok_threeDSecure": Outcome(Verdict.PENDING, redirect=True),
    "tok_pending": Outcome(Verdict.PENDING),
    "tok_timeout": Outcome(Verdict.UNKNOWN, PROVIDER_TIMEOUT, "the provider did not answer", answers=False),
    "tok_error": Outcome(Verdict.UNKNOWN, PROVIDER_ERROR, "the provider answered 500"),
}


def outcome_of(token: str | None) -> Outcome:
    """No method at all is a yes, and so is every other token of the right form (contract §7)."""
    if token is None:
        return YES
    outcome = VERDICTS.get(token)
    if outcome is not None:
        return outcome
    return YES if token.startswith(("tok_", "pm_")) else NO_SUCH_METHOD


def object_id_of(call: ProviderCall) -> str:
    """The object a call is about: the one it names, else the one that `create_object` makes of it, always the same."""
    if call.object_id is not None:
        return call.object_id
    if call.charge_id is not None and call.charge_id.startswith("mock_ch_"):
        return "mock_pi_" + call.charge_id.removeprefix("mock_ch_")
    return "mock_pi_" + _digest(f"{call.payment_id}\0{call.object_key}")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=12).hexdigest()


class _State(StrEnum):
    OPEN = "OPEN"
    ACTION = "ACTION"
    """Waits for the shopper."""
    SETTLING = "SETTLING"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    CANCELLED = "CANCELLED"


@dataclass(slots=True)
class _Object:
    """`authorized` or `captured` None: it happened before the memory begins, nobody knows how much."""

    object_id: str
    currency: str
    recalled: bool
    """Made from a later call, not by `create_object`: it may have been through more than is known."""
    state: _State = _State.OPEN
    kind: Kind = Kind.CHARGE
    """CHARGE or AUTHORIZE: what a shopper's approval or a settlement completes."""
    amount_minor: int = 0
    settles_at_ms: int = 0
    authorized: int | None = 0
    captured: int | None = 0
    refunded: int = 0
    settled: bool = False
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer under its key. `fingerprint`: a hash of what was asked, so that no token is kept."""

    fingerprint: int
    answer: Answer


def _fingerprint(call: ProviderCall, object_id: str) -> int:
    return hash((call.kind, object_id, call.amount_minor, call.currency, call.method_token))


_MISMATCH = Answer(Verdict.UNKNOWN, code=IDEMPOTENCY_MISMATCH, message="the key was used with other parameters")
_NOT_FOUND = Answer(Verdict.UNKNOWN, code=NOT_FOUND, message="the provider has no answer under this key")


class MockProvider:
    """The Provider port in memory. Not for two event loops: nothing in it is locked, since nothing in it waits
    between reading and writing.

    Limits: OBJECTS_MAX, KEYS_MAX.
    """

    name = "MOCK"

    def __init__(
        self,
        clock: Clock,
        *,
        public_url: str,
        settle_ms: int = 0,
        latency_ms: int = 0,
        objects_max: int = OBJECTS_MAX,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._settle_ms = settle_ms
        self._latency_s = latency_ms / 1000
        self._objects_max, self._keys_max = objects_max, keys_max
        self._objects: OrderedDict[str, _Object] = OrderedDict()
        self._said: dict[str, _Said] = {}
        self._forgettable: deque[str] = deque()

    async def create_object(self, call: ProviderCall) -> Answer:
        object_id = "mock_pi_" + _digest(f"{call.payment_id}\0{call.object_key}")
        fingerprint = hash((call.payment_id, call.amount_minor, call.currency, call.capture_method))
        said = self._said.get(call.object_key)
        if said is not None:
            return said.answer if said.fingerprint == fingerprint else _MISMATCH
        thing = self._objects.get(object_id) or self._remember(object_id, call.currency, recalled=False)
        return self._say(thing, call.object_key, fingerprint, Answer(Verdict.APPROVED, object_id=object_id))

    async def send(self, call: ProviderCall) -> Answer:
        """What the provider does, it does before the latency: a call that is given up meanwhile has happened."""
        object_id = object_id_of(call)
        fingerprint = _fingerprint(call, object_id)
        said = self._said.get(call.key)
        if said is None:
            thing = self._objects.get(object_id) or self._recall(call, object_id)
            answer = self._do(thing, call, fingerprint)
        else:
            answer = said.answer if said.fingerprint == fingerprint else _MISMATCH
        if call.kind in TAKES_MONEY and not outcome_of(call.method_token).answers:
            await asyncio.get_running_loop().create_future()
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        return answer

    async def lookup(self, call: ProviderCall) -> Answer:
        object_id = object_id_of(call)
        said = self._said.get(call.key)
        if said is not None:
            if said.fingerprint != _fingerprint(call, object_id):
                return _MISMATCH
            if said.answer.verdict is not Verdict.PENDING:
                return said.answer
            return self._now(self._objects[object_id], call.key)
        thing = self._objects.get(object_id)
        if thing is None:
            thing = self._recall(call, object_id)
        elif not thing.recalled:
            return _NOT_FOUND
        answer = self._do(thing, call, _fingerprint(call, object_id))
        if thing.state is _State.SETTLING:
            thing.settles_at_ms = 0
        return answer if answer.verdict is not Verdict.PENDING else self._now(thing, call.key)

    def approve(self, object_id: str) -> bool:
        """The shopper said yes on the page of `nextAction.url`. False: this object waits for nobody.

        Idempotent by `object_id`: a second yes is True as well while the payment stands.
        """
        thing = self._objects.get(object_id)
        if thing is None:
            return False
        if thing.state is _State.ACTION:
            self._take(thing, thing.kind, thing.amount_minor)
        return thing.state in (_State.AUTHORIZED, _State.CAPTURED)

    # --- what is done with an object ---------------------------------------------------------------------------

    def _do(self, thing: _Object, call: ProviderCall, fingerprint: int) -> Answer:
        self._settle_if_due(thing)
        match call.kind:
            case Kind.CHARGE | Kind.AUTHORIZE:
                answer = self._charge(thing, call)
            case Kind.CAPTURE:
                answer = self._capture(thing, call)
            case Kind.VOID:
                answer = self._void(thing, call)
            case Kind.REFUND:
                answer = self._refund(thing, call)
        return self._say(thing, call.key, fingerprint, answer)

    def _charge(self, thing: _Object, call: ProviderCall) -> Answer:
        """Confirms the object, or says what it already is: two attempts on one object are one movement of money."""
        if thing.state not in (_State.OPEN, _State.ACTION):
            return self._standing(thing)
        thing.kind, thing.amount_minor = call.kind, call.amount_minor
        outcome = outcome_of(call.method_token)
        if outcome is YES:
            self._take(thing, call.kind, call.amount_minor)
            return self._standing(thing)
        if outcome.verdict is Verdict.PENDING:
            thing.state = _State.ACTION if outcome.redirect else _State.SETTLING
            thing.settles_at_ms = self._clock.now_ms() + self._settle_ms
            return self._standing(thing)
        thing.state = _State.OPEN
        self._settled(thing)
        return Answer(
            outcome.verdict, object_id=thing.object_id, code=outcome.code, message=outcome.message,
            decline_code=outcome.decline_code,
        )  # fmt: skip

    def _capture(self, thing: _Object, call: ProviderCall) -> Answer:
        if thing.state is not _State.AUTHORIZED:
            return _declined(thing, INVALID_STATE, f"an object that is {thing.state} cannot be captured")
        if thing.authorized is not None and call.amount_minor > thing.authorized:
            return _declined(thing, AMOUNT_TOO_LARGE, "more than is authorized")
        self._take(thing, Kind.CAPTURE, call.amount_minor)
        return _moved(thing, call, "mock_cap_")

    def _void(self, thing: _Object, call: ProviderCall) -> Answer:
        if thing.state is _State.CAPTURED:
            return _declined(thing, INVALID_STATE, "the money was taken: refund it")
        thing.state = _State.CANCELLED
        self._settled(thing)
        return _moved(thing, call, "mock_void_")

    def _refund(self, thing: _Object, call: ProviderCall) -> Answer:
        if thing.state is not _State.CAPTURED:
            return _declined(thing, INVALID_STATE, "no money was taken")
        if thing.captured is not None and thing.refunded + call.amount_minor > thing.captured:
            return _declined(thing, AMOUNT_TOO_LARGE, "more than was captured")
        thing.refunded += call.amount_minor
        return _moved(thing, call, "mock_re_")

    def _take(self, thing: _Object, kind: Kind, amount_minor: int) -> None:
        if kind is not Kind.CAPTURE:
            thing.authorized = amount_minor
        if kind is Kind.AUTHORIZE:
            thing.state = _State.AUTHORIZED
        else:
            thing.state, thing.captured = _State.CAPTURED, amount_minor
            self._settled(thing)

    def _settle_if_due(self, thing: _Object) -> None:
        if thing.state is _State.SETTLING and self._clock.now_ms() >= thing.settles_at_ms:
            self._take(thing, thing.kind, thing.amount_minor)

    def _now(self, thing: _Object, key: str) -> Answer:
        """What became of a charge that was pending; the answer is kept as soon as it is final."""
        self._settle_if_due(thing)
        answer = self._standing(thing)
        said = self._said.get(key)
        if said is not None and answer.verdict is not Verdict.PENDING:
            self._said[key] = replace(said, answer=answer)
        return answer

    def _standing(self, thing: _Object) -> Answer:
        """What an object is, as the answer to whoever wants it paid."""
        match thing.state:
            case _State.AUTHORIZED | _State.CAPTURED:
                return Answer(
                    Verdict.APPROVED, "mock_ch_" + thing.object_id.removeprefix("mock_pi_"), thing.object_id,
                    thing.authorized, thing.currency,
                )  # fmt: skip
            case _State.ACTION:
                url = f"{self._public_url}/mock/approve/{thing.object_id}"
                return Answer(Verdict.PENDING, object_id=thing.object_id, next_action=NextAction("redirect", url=url))
            case _State.SETTLING:
                return Answer(Verdict.PENDING, object_id=thing.object_id)
            case _State.CANCELLED:
                return _declined(thing, OBJECT_CANCELLED, "it was cancelled at the provider")
            case _State.OPEN:
                return _NOT_FOUND

    # --- memory ------------------------------------------------------------------------------------------------

    def _recall(self, call: ProviderCall, object_id: str) -> _Object:
        """An object from before the memory begins, as the call supposes it to be."""
        thing = self._remember(object_id, call.currency, recalled=True)
        if call.kind in (Kind.CAPTURE, Kind.VOID):
            thing.state, thing.authorized = _State.AUTHORIZED, None
        elif call.kind is Kind.REFUND:
            thing.state, thing.authorized, thing.captured = _State.CAPTURED, None, None
            self._settled(thing)
        return thing

    def _remember(self, object_id: str, currency: str, *, recalled: bool) -> _Object:
        thing = self._objects[object_id] = _Object(object_id, currency, recalled)
        return thing

    def _say(self, thing: _Object, key: str, fingerprint: int, answer: Answer) -> Answer:
        self._said[key] = _Said(fingerprint, answer)
        thing.keys.append(key)
        while len(self._objects) > self._objects_max or len(self._said) > self._keys_max:
            self._forget_one()
        return answer

    def _settled(self, thing: _Object) -> None:
        if not thing.settled:
            thing.settled = True
            self._forgettable.append(thing.object_id)

    def _forget_one(self) -> None:
        """The oldest settled object, or the oldest of all when none is settled."""
        forgotten: _Object | None = None
        while self._forgettable and forgotten is None:
            oldest = self._objects[self._forgettable.popleft()]
            if oldest.state in (_State.ACTION, _State.SETTLING):
                oldest.settled = False  # declined once, tried again since
            else:
                forgotten = self._objects.pop(oldest.object_id)
        if forgotten is None:
            _, forgotten = self._objects.popitem(last=False)
        for key in forgotten.keys:
            del self._said[key]


def _declined(thing: _Object, code: str, message: str) -> Answer:
    return Answer(Verdict.DECLINED, object_id=thing.object_id, code=code, message=message)


def _moved(thing: _Object, call: ProviderCall, prefix: str) -> Answer:
    return Answer(
        Verdict.APPROVED, prefix + _digest(call.key), thing.object_id, call.amount_minor, thing.currency
    )
