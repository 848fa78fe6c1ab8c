"""The mock provider's own HTTP: `POST /mock/create_object`, `/mock/send`, `/mock/lookup`.

Room: cli/provider_sim. JSON in with the fields of the service's ProviderCall, JSON out with those of its Answer;
amounts are minor units. Tokens decide, as in contract §7. The same key gives the same answer and moves money once; a
key used for something else is UNKNOWN with IDEMPOTENCY_MISMATCH. Two charges of one object are one movement. A look-up
tells what the ledger holds: by key if that was executed, else what the object is; never "it was not sent".
"""

from typing import Any

import orjson
from aiohttp import web

from payment_service.cli.provider_sim.door import Asked, BadRequest, Dialect, Door, Reply
from payment_service.cli.provider_sim.idempotency import fingerprint_of
from payment_service.cli.provider_sim.mock_dashboard import MockDashboard
from payment_service.cli.provider_sim.mock_objects import (
    CREATE,
    OBJECT,
    PROVIDER,
    SEND,
    MockObjects,
    capture_id,
    charge_id,
    object_id_of,
    void_id,
)
from payment_service.cli.provider_sim.world import Thing, World, digest, now_ms

CHARGES = {"CHARGE", "AUTHORIZE"}
REQUIRED: dict[str, type] = {
    "key": str, "kind": str, "payment_id": str, "order_id": str, "amount_minor": int, "currency": str,
    "capture_method": str, "object_key": str,
}  # fmt: skip
DECLINES = {
    "tok_chargeDeclined": ("card_declined", "the card was declined"),
    "tok_chargeDeclinedInsufficientFunds": ("insufficient_funds", "the card has insufficient funds"),
}


def register(app: web.Application, world: World) -> None:
    objects = MockObjects(world)
    mock = Mock(objects)
    MockDashboard(objects)
    door = Door(world, Dialect(PROVIDER, _trouble, _key_of))
    app.router.add_post("/mock/create_object", door.to(mock.create_object))
    app.router.add_post("/mock/send", door.to(mock.send))
    app.router.add_post("/mock/lookup", door.to(mock.lookup))
    world.on_due[OBJECT] = mock.settled
    world.on_approved[OBJECT] = mock.approved
    world.webhooks.sign_with(PROVIDER, objects.sign)


def _trouble(status: int, why: str) -> Reply:
    return Reply(status, {"error": why})


def _key_of(asked: Asked) -> str | None:
    try:
        key = orjson.loads(asked.body).get("key")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return key if isinstance(key, str) else None


def said(verdict: str, **more: Any) -> Thing:
    return {"verdict": verdict, **more}


_MISMATCH = said("UNKNOWN", code="IDEMPOTENCY_MISMATCH", message="the key was used with other parameters")
_NOT_FOUND = said("UNKNOWN", code="NOT_FOUND", message="nothing was done under this key")


class Mock:
    def __init__(self, objects: MockObjects) -> None:
        self._objects = objects
        self._world = objects.world

    def create_object(self, asked: Asked) -> Reply:
        call = _call_of(asked)
        key = call["object_key"]
        fingerprint = fingerprint_of(call["payment_id"], call["amount_minor"], call["currency"], call["capture_method"])
        kept = self._world.answers.get(CREATE, key)
        if kept is not None:
            return Reply(200, kept.body if kept.fingerprint == fingerprint else _MISMATCH)
        thing = self._objects.of(call)
        answer = said("APPROVED", object_id=thing["id"])
        self._world.answers.keep(CREATE, key, fingerprint, 200, answer)
        return Reply(200, answer)

    def send(self, asked: Asked) -> Reply:
        call = _call_of(asked)
        card = call.get("method_token") if call["kind"] in CHARGES else None
        if card == "tok_timeout":
            return Reply(200, None, silent=True)
        if card == "tok_error":
            return Reply(500, {"error": "tok_error"})
        kept = self._world.answers.get(SEND, call["key"])
        if kept is not None:
            return Reply(200, kept.body if kept.fingerprint == _fingerprint(call) else _MISMATCH, moves_money=True)
        thing = self._world.get(OBJECT, call["object_id"]) if call.get("object_id") else self._objects.of(call)
        if thing is None:
            return Reply(200, _NOT_FOUND)
        answer = self._do(thing, call)
        self._world.answers.keep(SEND, call["key"], _fingerprint(call), 200, answer)
        return Reply(200, answer, moves_money=True)

    def lookup(self, asked: Asked) -> Reply:
        call = _call_of(asked)
        thing = self._world.get(OBJECT, object_id_of(call))
        kept = self._world.answers.get(SEND, call["key"])
        if kept is not None and kept.fingerprint != _fingerprint(call):
            return Reply(200, _MISMATCH)
        if kept is not None and (kept.body["verdict"] != "PENDING" or thing is None):
            return Reply(200, kept.body)
        return Reply(200, _NOT_FOUND if thing is None else self._standing_for(thing, call))

    # --- without a call ------------------------------------------------------------------------------------------

    def settled(self, thing: Thing) -> None:
        if thing["state"] == "SETTLING":
            self._objects.take(thing, thing["kind"], thing["amount_minor"], thing["_key"])

    def approved(self, thing: Thing) -> None:
        """The shopper's yes: the browser moves the money, under nobody's key. Twice is once."""
        if thing["state"] == "ACTION":
            self._objects.take(thing, thing["kind"], thing["amount_minor"], None)

    # --- what is done with an object ---------------------------------------------------------------------------

    def _do(self, thing: Thing, call: Thing) -> Thing:
        match call["kind"]:
            case "CHARGE" | "AUTHORIZE":
                return self._charge(thing, call)
            case "CAPTURE":
                return self._capture(thing, call)
            case "VOID":
                return self._void(thing, call)
            case "REFUND":
                return self._refund(thing, call)
            case other:
                return said("UNKNOWN", code="NOT_FOUND", message=f"no such kind of call: {other[:20]}")

    def _charge(self, thing: Thing, call: Thing) -> Thing:
        if thing["state"] not in ("OPEN", "ACTION"):
            return self._standing(thing)
        card = call.get("method_token")
        thing.update(kind=call["kind"], amount_minor=call["amount_minor"], state="OPEN", _key=call["key"])
        if card in DECLINES:
            self._world.put(OBJECT, thing)
            decline_code, message = DECLINES[card]
            return self._declined(thing, call, "CARD_DECLINED", message, decline_code=decline_code)
        if card is not None and not card.startswith(("tok_", "pm_")):
            self._world.put(OBJECT, thing)
            return self._declined(thing, call, "INVALID_PAYMENT_METHOD", "no such payment method")
        if card == "tok_threeDSecure":
            thing["state"] = "ACTION"
            self._world.put(OBJECT, thing)
        elif card == "tok_pending":
            thing.update(state="SETTLING", _due_ms=now_ms() + self._world.settings.settle_ms)
            self._world.put(OBJECT, thing)
        else:
            self._objects.take(thing, call["kind"], call["amount_minor"], call["key"])
        return self._standing(thing)

    def _capture(self, thing: Thing, call: Thing) -> Thing:
        if thing["state"] != "AUTHORIZED":
            return _no(thing, "INVALID_STATE", f"an object that is {thing['state']} cannot be captured")
        if call["amount_minor"] > thing["authorized"]:
            return _no(thing, "AMOUNT_TOO_LARGE", "more than is authorized")
        self._objects.take(thing, "CAPTURE", call["amount_minor"], call["key"])
        return _moved(thing, capture_id(thing), call["amount_minor"])

    def _void(self, thing: Thing, call: Thing) -> Thing:
        if thing["state"] == "CAPTURED":
            return _no(thing, "INVALID_STATE", "the money was taken: refund it")
        if thing["state"] != "CANCELLED":
            self._objects.void(thing, call["key"])
        return _moved(thing, void_id(thing), call["amount_minor"])

    def _refund(self, thing: Thing, call: Thing) -> Thing:
        if thing["state"] != "CAPTURED":
            return _no(thing, "INVALID_STATE", "no money was taken")
        if thing["refunded"] + call["amount_minor"] > thing["captured"]:
            return _no(thing, "AMOUNT_TOO_LARGE", "more than was captured")
        refund_id = "mock_re_" + digest(call["key"])
        self._objects.refund(thing, refund_id, call["amount_minor"], call["key"])
        return _moved(thing, refund_id, call["amount_minor"])

    def _declined(self, thing: Thing, call: Thing, code: str, message: str, **more: Any) -> Thing:
        """A no that the shopper hears of, and so does whoever listens."""
        self._objects.tell(
            thing, "charge.failed", key=call["key"], code=code, message=message, amount_minor=call["amount_minor"],
            **more,
        )  # fmt: skip
        return _no(thing, code, message, **more)

    # --- what an object is ---------------------------------------------------------------------------------------

    def _standing(self, thing: Thing) -> Thing:
        """As the answer to whoever wants it paid."""
        match thing["state"]:
            case "AUTHORIZED" | "CAPTURED":
                return _moved(thing, charge_id(thing), thing["authorized"])
            case "ACTION":
                url = f"{self._world.settings.public_url}/_sim/approve/{thing['id']}"
                return said("PENDING", object_id=thing["id"], next_action={"type": "redirect", "url": url})
            case "SETTLING":
                return said("PENDING", object_id=thing["id"])
            case "CANCELLED":
                return _no(thing, "OBJECT_CANCELLED", "it was cancelled at the provider", object_closed=True)
            case _:
                return _NOT_FOUND

    def _standing_for(self, thing: Thing, call: Thing) -> Thing:
        """As the answer to a call that was never executed under its key, or that was pending."""
        match call["kind"], thing["state"]:
            case (("CHARGE" | "AUTHORIZE"), _):
                return self._standing(thing)
            case "CAPTURE", "CAPTURED" if thing["kind"] == "AUTHORIZE":
                return _moved(thing, capture_id(thing), thing["captured"])
            case "VOID", "CANCELLED":
                return _moved(thing, void_id(thing), call["amount_minor"])
            case _:
                return _NOT_FOUND


def _call_of(asked: Asked) -> Thing:
    """Raises BadRequest."""
    try:
        call = orjson.loads(asked.body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("not JSON") from error
    if not isinstance(call, dict) or any(not isinstance(call.get(name), kind) for name, kind in REQUIRED.items()):
        raise BadRequest(f"an object with {', '.join(REQUIRED)}")
    return call


def _fingerprint(call: Thing) -> str:
    return fingerprint_of(
        call["kind"], object_id_of(call), call["amount_minor"], call["currency"],
        call.get("method_token"),
    )  # fmt: skip


def _no(thing: Thing, code: str, message: str, **more: Any) -> Thing:
    return said("DECLINED", object_id=thing["id"], code=code, message=message, **more)


def _moved(thing: Thing, provider_id: str, amount_minor: int) -> Thing:
    return said(
        "APPROVED", provider_id=provider_id, object_id=thing["id"], amount_minor=amount_minor,
        currency=thing["currency"],
    )  # fmt: skip
