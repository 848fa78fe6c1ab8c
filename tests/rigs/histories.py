"""Histories of a payment as text, so that a test of the state machine is one line: given / when / then.

A word is a command; what it needs (numbers, ids) is taken from the payment as it is then:

    created [manual] [confirmed] [amount=N] [user=U]     POST /payments
    order [charge] [amount=N] [user=U]                   order.created
    charge | process | charge approved | charge object=X process with a method, without, after PayPal's approval, by id
    capture [N] · cancel · order-cancel [refund] · refund [N]
    object [X] · action · expire-action [#N] · expire-authorization · give-up [#N]
    approved | declined | not-sent | pending | unknown   [#N] [r#N] [id=X] [amount=N] [currency=C] [by=SOURCE]
                                                         [review=R] [gone]
                                                         the answer for the last attempt, attempt #N, refund r#N
    by-hand VERDICT [#N] [r#N] [...]                     the same, decided by a person
    external N ID [VERDICT] · captured N [ID] · dispute STATE [N] [ID] · flag R · clear
                                                         a refund, or a capture, made in the provider's dashboard

A fact is shown as `Name(what matters)` with `>topic` when it is published; ` = STATUS` follows a change of status.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.decide import decide
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.payment import Payment, status_of
from payment_service.core.terms import CaptureMethod, DisputeState, Kind, Source, Topic, Verdict

PAYMENT_ID = "pay_0123456789abcdef0123456789abcdef"
AMOUNT = 3000
ACTION_TTL_MS = 1000

_SHOWN: dict[str, tuple[str, ...]] = {
    "PaymentCreated": ("amount_minor", "unconfirmed"),
    "OrderConfirmed": ("user_id", "amount_minor", "payment_method_id", "changed"),
    "AttemptStarted": ("number", "kind", "amount_minor", "scheduled", "cause", "object_id"),
    "ObjectCreated": ("number", "object_id"),
    "AttemptApproved": ("number", "amount_minor", "counted"),
    "AttemptDeclined": ("number", "code", "object_closed"),
    "CancelRequested": ("final",),
    "PaymentCancelled": ("final", "announced"),
    "RefundRequested": ("number", "amount_minor", "scheduled", "cause"),
    "RefundCompleted": ("number", "amount_minor", "counted"),
    "ExternalCapture": ("number", "amount_minor"),
    "ExternalRefund": ("number", "amount_minor", "status"),
    "DisputeChanged": ("state", "amount_minor"),
    "Contradicted": ("subject", "recorded", "said"),
    "DecidedByHand": ("subject", "said"),
    "ReviewFlagged": ("reason",),
}
_VERDICTS = {v.value.lower().replace("_", "-"): v for v in Verdict}


@dataclass(frozen=True, slots=True)
class Told:
    """One fact and where it was published."""

    event: e.Event
    topic: Topic | None
    after: Payment


def run(history: str, payment: Payment | None = None) -> tuple[Payment | None, list[Told]]:
    """Everything that happened. A word that is refused stops the test: a history is what did happen."""
    told: list[Told] = []
    for at, text in enumerate(word for word in history.split(", ") if word):
        try:
            events = decide(payment, command_of(text, payment, at_ms=(at + 1) * 10))
        except Refused as refused:
            raise AssertionError(f"{text!r} in {history!r}: {refused.code} {refused.message}") from None
        for event in events:
            payment, topic = apply(payment, event, PAYMENT_ID)
            told.append(Told(event, topic, payment))
    return payment, told


def given(history: str) -> Payment:
    payment, _ = run(history)
    assert payment is not None
    return payment


def outcome(history: str, when: str) -> str:
    """What `when` does after `history`: facts, a refusal's code, or "nothing"."""
    payment, _ = run(history)
    command = command_of(when, payment, at_ms=5_000)
    try:
        events = decide(payment, command)
    except Refused as refused:
        return refused.code
    before, shown = payment, []
    for event in events:
        payment, topic = apply(payment, event, PAYMENT_ID)
        shown.append(show(event) + (f">{topic.removeprefix('payment.')}" if topic else ""))
    if not shown:
        return "nothing"
    assert payment is not None
    status = status_of(payment)
    return ", ".join(shown) + (f" = {status}" if before is None or status_of(before) is not status else "")


def show(event: e.Event) -> str:
    """`AttemptStarted(#1 CHARGE 3000 scheduled)`: flags by name, `not-x` for one that is true unless said."""
    name = type(event).__name__
    known = {f.name for f in fields(event)}
    parts = []
    for field in _SHOWN.get(name, ("number",) if "number" in known else ()):
        value = getattr(event, field)
        if field in ("counted", "announced"):
            parts += [] if value else [f"not-{field}"]
        elif isinstance(value, bool):
            parts += [field] if value else []
        elif value is not None:
            parts.append(f"#{value}" if field == "number" else str(value))
    return f"{name}({' '.join(parts)})" if parts else name


# --- words -> commands -----------------------------------------------------------------------------------------


def command_of(text: str, payment: Payment | None, at_ms: int) -> c.Command:
    word, *rest = text.split(" ")
    flags = {part for part in rest if "=" not in part}
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    common: dict[str, object] = {"payment_id": PAYMENT_ID, "command_id": f"c{at_ms}", "at_ms": at_ms}
    if word in _VERDICTS:
        return _answer(payment, _VERDICTS[word], flags, named, common)
    if word == "by-hand":
        answer = _answer(payment, _VERDICTS[rest[0]], flags, {"by": "operator", **named}, common)
        assert isinstance(answer, c.RecordAnswer)
        return c.DecideByHand(**common, by="operator:eve", reason="asked the bank", answer=answer)  # type: ignore[arg-type]
    return _WORDS[word](payment, rest, flags, named, common)


def _numbered(payment: Payment | None, flags: set[str]) -> int:
    for flag in flags:
        if flag.startswith("#"):
            return int(flag[1:])
    return len(payment.attempts) if payment is not None else 0


def _answer(
    payment: Payment | None, verdict: Verdict, flags: set[str], named: dict[str, str], common: dict[str, object]
) -> c.Command:
    refund = next((int(flag[2:]) for flag in flags if flag.startswith("r#")), None)
    number = _numbered(payment, flags) if refund is None else refund
    kind = Kind.REFUND
    if refund is None:
        known = payment is not None and 1 <= number <= len(payment.attempts)
        kind = payment.attempts[number - 1].kind if known and payment is not None else Kind.CHARGE
    no = verdict in (Verdict.DECLINED, Verdict.NOT_SENT, Verdict.UNKNOWN)
    made_up = f"{'re' if refund else 'ch'}_{number}"
    return c.RecordAnswer(
        **common,  # type: ignore[arg-type]
        kind=kind,
        number=number,
        verdict=verdict,
        source=Source(named.get("by", "live")),
        provider_id={"none": None}.get(named.get("id", ""), named.get("id", made_up)),
        amount_minor=int(named["amount"]) if "amount" in named else None,
        currency=named.get("currency"),
        code=verdict.value if no else "",
        review=(named["review"],) if "review" in named else (),
        object_closed="gone" in flags,
    )


def _create(
    payment: Payment | None, rest: list[str], flags: set[str], named: dict[str, str], common: dict[str, object]
) -> c.Command:
    by_order = bool({"order"} & flags)
    user = named.get("user", "u1")
    return c.CreatePayment(
        **common,  # type: ignore[arg-type]
        by="order" if by_order else f"user:{user}",
        order_id="order-1",
        user_id=user,
        amount_minor=int(named.get("amount", AMOUNT)),
        currency=named.get("currency", "EUR"),
        provider=named.get("provider", "mock"),
        payment_method_id=named.get("method"),
        capture_method=CaptureMethod.MANUAL if "manual" in flags else CaptureMethod.AUTOMATIC,
        by_order=by_order,
        confirmed="confirmed" in flags,
        charge="charge" in flags,
    )


def _start_charge(
    payment: Payment | None, rest: list[str], flags: set[str], named: dict[str, str], common: dict[str, object]
) -> c.Command:
    return c.StartCharge(
        **common,  # type: ignore[arg-type]
        by=f"user:{named.get('user', 'u1')}",
        owner=named.get("user", "u1"),
        has_method="process" not in flags and "approved" not in flags,
        approved="approved" in flags,
        object_id=named.get("object"),
        require_confirmed="production" in flags,
    )


def _cancel(
    payment: Payment | None, rest: list[str], flags: set[str], named: dict[str, str], common: dict[str, object]
) -> c.Command:
    if "order" not in flags:
        user = named.get("user", "u1")
        return c.Cancel(**common, by=f"user:{user}", owner=user, reason="changed my mind")  # type: ignore[arg-type]
    return c.Cancel(
        **common,  # type: ignore[arg-type]
        by="order", reason="out of stock", by_order=True, order_id="order-1", user_id="u1", provider="mock",
        refund_succeeded="refund" in flags,
    )  # fmt: skip


def _amount(rest: list[str]) -> int | None:
    return next((int(part) for part in rest if part.lstrip("-").isdigit()), None)


_Maker = Callable[[Payment | None, list[str], set[str], dict[str, str], dict[str, object]], c.Command]
# mypy cannot see through **common: every entry names the rest of its command's fields.
_WORDS: dict[str, _Maker] = {
    "created": _create,
    "order": lambda p, r, f, n, k: _create(p, r, f | {"order"}, n, k),
    "charge": _start_charge,
    "process": lambda p, r, f, n, k: _start_charge(p, r, f | {"process"}, n, k),
    "capture": lambda p, r, f, n, k: c.StartCapture(**k, by="service", amount_minor=_amount(r)),  # type: ignore[arg-type]
    "cancel": _cancel,
    "order-cancel": lambda p, r, f, n, k: _cancel(p, r, f | {"order"}, n, k),
    "refund": lambda p, r, f, n, k: c.RequestRefund(**k, by="service", amount_minor=_amount(r)),  # type: ignore[arg-type]
    "object": lambda p, r, f, n, k: c.RecordObject(
        **k,  # type: ignore[arg-type]
        number=_numbered(p, f),
        object_id=r[0] if r and r[0][0] != "#" else f"pi_{(p.object_number if p else 0) + 1}",
    ),
    "action": lambda p, r, f, n, k: c.RequireAction(
        **k,  # type: ignore[arg-type]
        number=_numbered(p, f), action_type="redirect", expires_at_ms=k["at_ms"] + ACTION_TTL_MS,  # type: ignore[operator]
    ),
    "expire-action": lambda p, r, f, n, k: c.ExpireAction(
        **{**k, "at_ms": k["at_ms"] + ACTION_TTL_MS}, number=_numbered(p, f)  # type: ignore[arg-type, operator]
    ),
    "give-up": lambda p, r, f, n, k: c.GiveUp(**k, number=_numbered(p, f)),  # type: ignore[arg-type]
    "send-again": lambda p, r, f, n, k: c.SendAgain(**k),  # type: ignore[arg-type]
    "expire-authorization": lambda p, r, f, n, k: c.ExpireAuthorization(**k, source=Source.WEBHOOK),  # type: ignore[arg-type]
    "external": lambda p, r, f, n, k: c.RecordExternalRefund(
        **k,  # type: ignore[arg-type]
        provider_id=r[1], amount_minor=int(r[0]), source=Source.WEBHOOK,
        verdict=_VERDICTS[r[2]] if len(r) > 2 else Verdict.APPROVED,
    ),
    "captured": lambda p, r, f, n, k: c.RecordExternalCapture(
        **k,  # type: ignore[arg-type]
        provider="mock", provider_id=r[1] if len(r) > 1 else "cap_9", amount_minor=int(r[0]),
        object_number=p.object_number if p else 0, source=Source.WEBHOOK,
    ),
    "dispute": lambda p, r, f, n, k: c.RecordDispute(
        **k,  # type: ignore[arg-type]
        dispute_id=r[2] if len(r) > 2 else "dp_1", state=DisputeState(r[0].upper()), amount_minor=_amount(r[:2]) or 0,
        reason=None, source=Source.WEBHOOK,
    ),
    "flag": lambda p, r, f, n, k: c.FlagReview(**k, by="operator:eve", reason=r[0]),  # type: ignore[arg-type]
    "clear": lambda p, r, f, n, k: c.ClearReview(**k, by="operator:eve", reason="looked at it"),  # type: ignore[arg-type]
}  # fmt: skip
