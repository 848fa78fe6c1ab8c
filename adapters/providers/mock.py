"""The mock: a provider inside the process, for development and tests. It takes no money and needs no network.

Amounts: integer minor units, as everywhere inside. Tokens decide the outcome, as Stripe's test tokens do
(mock_tokens.py);
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
from dataclasses import replace
from hashlib import blake2b
from typing import Protocol

from pydantic import SecretStr

from payment_service.adapters.providers.mock_memory import MockMemory, MockObject, State
from payment_service.adapters.providers.mock_methods import MockMethods
from payment_service.adapters.providers.mock_remote import RemoteMock
from payment_service.adapters.providers.mock_tokens import YES, outcome_of
from payment_service.adapters.providers.mock_webhooks import MockWebhooks, remote_objects
from payment_service.adapters.providers.registration import (
    IDEMPOTENCY_MISMATCH,
    NOT_FOUND,
    OBJECT_NOT_OURS,
    PROVIDER_ERROR,
    PROVIDER_TIMEOUT,
    Registration,
    Sessions,
)
from payment_service.core.ports import Answer, Clock, NextAction, Provider, ProviderCall
from payment_service.core.terms import TAKES_MONEY, Kind, Verdict

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
    def mock_provider_url(self) -> str | None: ...

    @property
    def mock_webhook_secret(self) -> SecretStr | None: ...

    @property
    def public_url(self) -> str | None: ...

    @property
    def port(self) -> int: ...

    @property
    def is_production(self) -> bool: ...


def _build(settings: MockSettings, clock: Clock, sessions: Sessions) -> Provider:
    """In this process, or the one of another that MOCK_PROVIDER_URL names."""
    if settings.mock_provider_url is not None:
        return RemoteMock(settings.mock_provider_url, sessions)
    return MockProvider(
        clock,
        public_url=settings.public_url or f"http://localhost:{settings.port}",
        settle_ms=settings.mock_settle_ms,
        latency_ms=settings.mock_latency_ms,
    )


def _webhooks(settings: MockSettings, clock: Clock, sessions: Sessions) -> MockWebhooks | None:
    secret, url = settings.mock_webhook_secret, settings.mock_provider_url
    if secret is None:
        return None
    return MockWebhooks(secret.get_secret_value(), remote_objects(url, sessions) if url is not None else None)


PROVIDER: Registration[MockSettings] = Registration(
    name="MOCK",
    configured=lambda settings: not settings.is_production,
    build=_build,
    webhooks=_webhooks,
    methods=lambda settings, clock, sessions: MockMethods(),
    networked=lambda settings: settings.mock_provider_url is not None,
)


def object_id_of(call: ProviderCall) -> str:
    """The object a call is about: the one it names, else the one that `create_object` makes of it, always the same."""
    if call.object_id is not None:
        return call.object_id
    if call.charge_id is not None and call.charge_id.startswith("mock_ch_"):
        return "mock_pi_" + call.charge_id.removeprefix("mock_ch_")
    return "mock_pi_" + _digest(f"{call.payment_id}\0{call.object_key}")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=12).hexdigest()


def _fingerprint(call: ProviderCall, object_id: str) -> int:
    return hash((call.kind, object_id, call.amount_minor, call.currency, call.method_token))


_MISMATCH = Answer(Verdict.UNKNOWN, code=IDEMPOTENCY_MISMATCH, message="the key was used with other parameters")
_NOT_FOUND = Answer(Verdict.UNKNOWN, code=NOT_FOUND, message="the provider has no answer under this key")


class MockProvider:
    """The Provider port in memory. Not for two event loops: nothing in it is locked, since nothing in it waits
    between reading and writing.

    Limits: those of its memory.
    """

    name = "MOCK"

    def __init__(
        self,
        clock: Clock,
        *,
        public_url: str,
        settle_ms: int = 0,
        latency_ms: int = 0,
        memory: MockMemory | None = None,
    ) -> None:
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._settle_ms = settle_ms
        self._latency_s = latency_ms / 1000
        self._memory = memory if memory is not None else MockMemory()

    async def create_object(self, call: ProviderCall) -> Answer:
        object_id = "mock_pi_" + _digest(f"{call.payment_id}\0{call.object_key}")
        fingerprint = hash((call.payment_id, call.amount_minor, call.currency, call.capture_method))
        said = self._memory.said.get(call.object_key)
        if said is not None:
            return said.answer if said.fingerprint == fingerprint else _MISMATCH
        thing = self._memory.objects.get(object_id) or self._memory.remember(object_id, call.currency, recalled=False)
        return self._memory.say(thing, call.object_key, fingerprint, Answer(Verdict.APPROVED, object_id=object_id))

    async def send(self, call: ProviderCall) -> Answer:
        """What the provider does, it does before the latency: a call that is given up meanwhile has happened."""
        if call.adopted:  # it does not know whose its objects are
            return Answer(
                Verdict.DECLINED, object_id=call.object_id, code=OBJECT_NOT_OURS, message="the mock adopts no object",
                object_closed=True,
            )  # fmt: skip
        object_id = object_id_of(call)
        fingerprint = _fingerprint(call, object_id)
        said = self._memory.said.get(call.key)
        if said is None:
            thing = self._memory.objects.get(object_id) or self._recall(call, object_id)
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
        said = self._memory.said.get(call.key)
        if said is not None:
            if said.fingerprint != _fingerprint(call, object_id):
                return _MISMATCH
            if said.answer.code in (PROVIDER_ERROR, PROVIDER_TIMEOUT):
                return _NOT_FOUND  # the charge failed, the look-up does not: it was not done
            if said.answer.verdict is not Verdict.PENDING:
                return said.answer
            return self._now(self._memory.objects[object_id], call.key)
        thing = self._memory.objects.get(object_id)
        if thing is None:
            thing = self._recall(call, object_id)
        elif not thing.recalled:
            return _NOT_FOUND
        answer = self._do(thing, call, _fingerprint(call, object_id))
        if thing.state is State.SETTLING:
            thing.settles_at_ms = 0
        return answer if answer.verdict is not Verdict.PENDING else self._now(thing, call.key)

    def approve(self, object_id: str) -> bool:
        """The shopper said yes on the page of `nextAction.url`. False: this object waits for nobody.

        Idempotent by `object_id`: a second yes is True as well while the payment stands.
        """
        thing = self._memory.objects.get(object_id)
        if thing is None:
            return False
        if thing.state is State.ACTION:
            self._take(thing, thing.kind, thing.amount_minor)
        return thing.state in (State.AUTHORIZED, State.CAPTURED)

    # --- what is done with an object ---------------------------------------------------------------------------

    def _do(self, thing: MockObject, call: ProviderCall, fingerprint: int) -> Answer:
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
        return self._memory.say(thing, call.key, fingerprint, answer)

    def _charge(self, thing: MockObject, call: ProviderCall) -> Answer:
        """Confirms the object, or says what it already is: two attempts on one object are one movement of money."""
        if thing.state not in (State.OPEN, State.ACTION):
            return self._standing(thing)
        thing.kind, thing.amount_minor = call.kind, call.amount_minor
        outcome = outcome_of(call.method_token)
        if outcome is YES:
            self._take(thing, call.kind, call.amount_minor)
            return self._standing(thing)
        if outcome.verdict is Verdict.PENDING:
            thing.state = State.ACTION if outcome.redirect else State.SETTLING
            thing.settles_at_ms = self._clock.now_ms() + self._settle_ms
            return self._standing(thing)
        thing.state = State.OPEN
        self._memory.settled(thing)
        return Answer(
            outcome.verdict, object_id=thing.object_id, code=outcome.code, message=outcome.message,
            decline_code=outcome.decline_code,
        )  # fmt: skip

    def _capture(self, thing: MockObject, call: ProviderCall) -> Answer:
        if thing.state is not State.AUTHORIZED:
            return _declined(thing, INVALID_STATE, f"an object that is {thing.state} cannot be captured")
        if thing.authorized is not None and call.amount_minor > thing.authorized:
            return _declined(thing, AMOUNT_TOO_LARGE, "more than is authorized")
        self._take(thing, Kind.CAPTURE, call.amount_minor)
        return _moved(thing, call, "mock_cap_")

    def _void(self, thing: MockObject, call: ProviderCall) -> Answer:
        if thing.state is State.CAPTURED:
            return _declined(thing, INVALID_STATE, "the money was taken: refund it")
        thing.state = State.CANCELLED
        self._memory.settled(thing)
        return _moved(thing, call, "mock_void_")

    def _refund(self, thing: MockObject, call: ProviderCall) -> Answer:
        if thing.state is not State.CAPTURED:
            return _declined(thing, INVALID_STATE, "no money was taken")
        if thing.captured is not None and thing.refunded + call.amount_minor > thing.captured:
            return _declined(thing, AMOUNT_TOO_LARGE, "more than was captured")
        thing.refunded += call.amount_minor
        return _moved(thing, call, "mock_re_")

    def _take(self, thing: MockObject, kind: Kind, amount_minor: int) -> None:
        if kind is not Kind.CAPTURE:
            thing.authorized = amount_minor
        if kind is Kind.AUTHORIZE:
            thing.state = State.AUTHORIZED
        else:
            thing.state, thing.captured = State.CAPTURED, amount_minor
            self._memory.settled(thing)

    def _settle_if_due(self, thing: MockObject) -> None:
        if thing.state is State.SETTLING and self._clock.now_ms() >= thing.settles_at_ms:
            self._take(thing, thing.kind, thing.amount_minor)

    def _now(self, thing: MockObject, key: str) -> Answer:
        """What became of a charge that was pending; the answer is kept as soon as it is final."""
        self._settle_if_due(thing)
        answer = self._standing(thing)
        said = self._memory.said.get(key)
        if said is not None and answer.verdict is not Verdict.PENDING:
            self._memory.said[key] = replace(said, answer=answer)
        return answer

    def _standing(self, thing: MockObject) -> Answer:
        """What an object is, as the answer to whoever wants it paid."""
        match thing.state:
            case State.AUTHORIZED | State.CAPTURED:
                return Answer(
                    Verdict.APPROVED, "mock_ch_" + thing.object_id.removeprefix("mock_pi_"), thing.object_id,
                    thing.authorized, thing.currency,
                )  # fmt: skip
            case State.ACTION:
                url = f"{self._public_url}/mock/approve/{thing.object_id}"
                return Answer(Verdict.PENDING, object_id=thing.object_id, next_action=NextAction("redirect", url=url))
            case State.SETTLING:
                return Answer(Verdict.PENDING, object_id=thing.object_id)
            case State.CANCELLED:
                return _declined(thing, OBJECT_CANCELLED, "it was cancelled at the provider")
            case State.OPEN:
                return _NOT_FOUND

    def _recall(self, call: ProviderCall, object_id: str) -> MockObject:
        """An object from before the memory begins, as the call supposes it to be."""
        thing = self._memory.remember(object_id, call.currency, recalled=True)
        if call.kind in (Kind.CAPTURE, Kind.VOID):
            thing.state, thing.authorized = State.AUTHORIZED, None
        elif call.kind is Kind.REFUND:
            thing.state, thing.authorized, thing.captured = State.CAPTURED, None, None
            self._memory.settled(thing)
        return thing


def _declined(thing: MockObject, code: str, message: str) -> Answer:
    return Answer(Verdict.DECLINED, object_id=thing.object_id, code=code, message=message)


def _moved(thing: MockObject, call: ProviderCall, prefix: str) -> Answer:
    return Answer(Verdict.APPROVED, prefix + _digest(call.key), thing.object_id, call.amount_minor, thing.currency)
