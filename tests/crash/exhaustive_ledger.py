"""A provider whose memory is the journal: it is asked by processes that die, and what it did stays done.

Money moves as at a real one: an object, then charge or authorize, capture, void, refund; one answer per idempotency
key. Tokens, and the cents of an amount, say what goes wrong: LOST happened and nobody hears of it, DROPPED never
arrived (once), SLOW takes a while to answer. It knows nothing of the service but its port.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from crash.exhaustive_journal import Journal

from payment_service.core.ports import Answer, NextAction, ProviderCall
from payment_service.core.terms import Verdict

SLOW_S = 0.03
LOST_CENTS, DROPPED_CENTS = 13, 17
"""An amount that ends so loses the answer, or the first request, of a capture or refund."""
MOVES = {"CHARGE": "charge", "AUTHORIZE": "authorize", "CAPTURE": "capture", "VOID": "void", "REFUND": "refund"}


@dataclass(slots=True)
class Thing:
    """A provider object, folded from the journal."""

    object_id: str
    state: str = "open"
    """open, action, authorized, captured, cancelled."""
    pending: dict[str, Any] = field(default_factory=dict)
    """What the shopper's yes will do."""
    captured: int = 0
    refunded: int = 0


class LedgerProvider:
    name = "MOCK"

    def __init__(self, journal: Journal, *, keeps_keys: bool = True) -> None:
        self._journal = journal
        self._keeps_keys = keeps_keys

    async def create_object(self, call: ProviderCall) -> Answer:
        said = self._said(call.object_key)
        if said is not None:
            return said
        number = len(self._journal.lines("object")) + 1
        object_id = f"obj_{number}_{call.payment_id[-6:]}"
        self._journal.write("object", object_id=object_id, payment_id=call.payment_id)
        return self._say(call.object_key, Answer(Verdict.APPROVED, object_id=object_id))

    async def send(self, call: ProviderCall) -> Answer:
        token = call.method_token or ""
        moves_later = call.kind not in ("CHARGE", "AUTHORIZE")
        cents = call.amount_minor % 100 if moves_later else 0
        said = self._said(call.key)
        if said is not None:
            return said
        drops = token == "tok_dropped" or cents == DROPPED_CENTS
        if drops and not any(line["key"] == call.key for line in self._journal.lines("dropped")):
            self._journal.write("dropped", key=call.key)
            return Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
        answer = self._say(call.key, self._do(call, token))
        if token == "tok_slow":
            await asyncio.sleep(SLOW_S)
        if token == "tok_lost" or cents == LOST_CENTS:
            return Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
        return answer

    async def lookup(self, call: ProviderCall) -> Answer:
        said = self._said(call.key)
        if said is None:
            return Answer(Verdict.UNKNOWN, code="NOT_FOUND")
        if said.verdict is not Verdict.PENDING:
            return said
        thing = self._things()[said.object_id or ""]
        if thing.state in ("authorized", "captured"):
            return Answer(Verdict.APPROVED, f"ch_{thing.object_id}", thing.object_id, call.amount_minor, call.currency)
        return said if thing.state == "action" else _no(thing, "OBJECT_CANCELLED")

    def approve(self, payment_id: str) -> bool:
        """The shopper's yes, for whatever of this payment waits for it."""
        for thing in self._things(payment_id).values():
            if thing.state == "action":
                self._journal.write("movement", **thing.pending)
                return True
        return False

    # --- what happens ------------------------------------------------------------------------------------------

    def _do(self, call: ProviderCall, token: str) -> Answer:
        thing = self._things(call.payment_id).get(call.object_id or "")
        if thing is None:
            return Answer(Verdict.DECLINED, code="NO_SUCH_OBJECT")
        match call.kind:
            case "CHARGE" | "AUTHORIZE":
                return self._charge(thing, call, token)
            case "CAPTURE" if thing.state == "authorized":
                return self._move(thing, call, f"cap_{call.key}")
            case "VOID" if thing.state in ("open", "action", "authorized"):
                return self._move(thing, call, f"void_{call.key}")
            case "REFUND" if thing.state == "captured" and thing.refunded + call.amount_minor <= thing.captured:
                return self._move(thing, call, f"re_{call.key}")
        return _no(thing, "INVALID_STATE")

    def _charge(self, thing: Thing, call: ProviderCall, token: str) -> Answer:
        charge_id = f"ch_{thing.object_id}"
        if thing.state in ("authorized", "captured"):
            return Answer(Verdict.APPROVED, charge_id, thing.object_id, call.amount_minor, call.currency)
        if thing.state == "cancelled":
            return _no(thing, "OBJECT_CANCELLED", closed=True)
        if token == "tok_declined":
            return _no(thing, "CARD_DECLINED")
        if token == "tok_secure":
            self._journal.write("waits", object_id=thing.object_id, pending=_movement(thing, call, None))
            action = NextAction("redirect", url="https://bank.example/yes")
            return Answer(Verdict.PENDING, object_id=thing.object_id, next_action=action)
        return self._move(thing, call, charge_id)

    def _move(self, thing: Thing, call: ProviderCall, movement_id: str) -> Answer:
        self._journal.write("movement", **_movement(thing, call, call.key))
        return Answer(Verdict.APPROVED, movement_id, thing.object_id, call.amount_minor, call.currency)

    # --- what it remembers -------------------------------------------------------------------------------------

    def _said(self, key: str) -> Answer | None:
        if not self._keeps_keys:
            return None
        for line in self._journal.lines("answer"):
            if line["key"] == key:
                fields = dict(line["answer"])
                action = NextAction("redirect", url="https://bank.example/yes") if fields.pop("acts") else None
                return Answer(Verdict(fields.pop("verdict")), next_action=action, **fields)
        return None

    def _say(self, key: str, answer: Answer) -> Answer:
        self._journal.write(
            "answer",
            key=key,
            answer={
                "verdict": answer.verdict, "provider_id": answer.provider_id, "object_id": answer.object_id,
                "amount_minor": answer.amount_minor, "currency": answer.currency, "code": answer.code,
                "object_closed": answer.object_closed, "acts": answer.next_action is not None,
            },
        )  # fmt: skip
        return answer

    def _things(self, payment_id: str | None = None) -> dict[str, Thing]:
        things: dict[str, Thing] = {}
        for line in self._journal.lines("object", "movement", "waits"):
            if line["line"] == "object":
                if payment_id in (None, line["payment_id"]):
                    things[line["object_id"]] = Thing(line["object_id"])
            elif line["object_id"] in things:
                _fold(things[line["object_id"]], line)
        return things


def _fold(thing: Thing, line: dict[str, Any]) -> None:
    if line["line"] == "waits":
        thing.state, thing.pending = "action", line["pending"]
        return
    match line["kind"]:
        case "authorize":
            thing.state = "authorized"
        case "charge" | "capture":
            thing.state, thing.captured = "captured", thing.captured + line["amount_minor"]
        case "void":
            thing.state = "cancelled"
        case "refund":
            thing.refunded += line["amount_minor"]


def _movement(thing: Thing, call: ProviderCall, key: str | None) -> dict[str, Any]:
    return {
        "kind": MOVES[call.kind], "object_id": thing.object_id, "payment_id": call.payment_id, "key": key,
        "amount_minor": call.amount_minor,
    }  # fmt: skip


def _no(thing: Thing, code: str, *, closed: bool = False) -> Answer:
    return Answer(Verdict.DECLINED, object_id=thing.object_id, code=code, object_closed=closed)
