"""Changes of payments as the execute use case makes them, for tests of the stores."""

from payment_service.core import commands as c
from payment_service.core.decide import decide
from payment_service.core.effects import CallProvider, effects_of
from payment_service.core.facts import apply
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import NOT_THERE, Change, Intent, Loaded, Secrets, Step
from payment_service.core.terms import Kind, Source, Verdict
from payment_service.core.use_cases.provider_calls import CallContext, build_call

AT_MS = 1_764_000_000_123
LEASE_S = 30.0


def create(
    order_id: str, command_id: str = "", *, user: str = "u1", amount: int = 1000, currency: str = "USD",
    at_ms: int = AT_MS, charge: bool = False, description: str | None = None, provider: str = "MOCK",
) -> c.CreatePayment:  # fmt: skip
    return c.CreatePayment(
        payment_id_of(order_id), command_id or f"create:{order_id}", at_ms, "order", order_id, user, amount, currency,
        provider, description=description, by_order=True, charge=charge,
    )  # fmt: skip


def charge(payment_id: str, command_id: str = "charge") -> c.StartCharge:
    return c.StartCharge(payment_id, command_id, AT_MS + 1, "user:u1", has_method=True)


def answer(payment_id: str, verdict: Verdict, command_id: str = "answer", number: int = 1) -> c.RecordAnswer:
    return c.RecordAnswer(
        payment_id, command_id, AT_MS + 2, Kind.CHARGE, number, verdict, Source.LIVE, provider_id=f"ch_{number}"
    )


def change_of(
    command: c.Command, loaded: Loaded = NOT_THERE, *, owner: str = "worker-1", lease_s: float = LEASE_S,
    secrets: Secrets | None = None, token: str | None = "tok_visa",
) -> Change:  # fmt: skip
    """What a worker commits for `command`, decided on `loaded`."""
    payment, steps, intents = loaded.payment, [], []
    for event in decide(payment, command):
        before = payment
        payment, topic = apply(payment, event, command.payment_id)
        steps.append(Step(event, payment.version, payment.sequence if topic else None, topic, payment))
        for effect in effects_of(before, event, payment, topic):
            if isinstance(effect, CallProvider):
                call = build_call(payment, effect.kind, effect.number, CallContext(method_token=token))
                intents.append(Intent(call, None if effect.scheduled else owner, lease_s))
    return Change(command.payment_id, command.command_id, loaded, tuple(steps), secrets, tuple(intents))
