"""The mock's objects, the money that moves with them and the events that tell of it.

Room: cli/provider_sim, beside mock.py. Nothing here knows what a token means.
"""

import hmac
from hashlib import sha256
from typing import Any

from payment_service.cli.provider_sim.world import Thing, World, digest, now_ms

PROVIDER = "mock"
OBJECT, REFUND, DISPUTE = "mock.object", "mock.refund", "mock.dispute"
SEND, CREATE = "mock", "mock.create"
"""Where answers are kept: a call's key and an object's key are not the same key."""
EVENTS = {"charge": "charge.succeeded", "authorize": "charge.authorized", "capture": "charge.captured"}


class MockObjects:
    def __init__(self, world: World) -> None:
        self.world = world

    def of(self, call: Thing) -> Thing:
        """The object a call is about, made if it is not there."""
        thing = self.world.get(OBJECT, object_id_of(call))
        if thing is None:
            thing = {
                "id": object_id_of(call), "payment_id": call["payment_id"], "order_id": call["order_id"],
                "currency": call["currency"], "state": "OPEN", "kind": "CHARGE", "amount_minor": 0, "authorized": 0,
                "captured": 0, "refunded": 0, "_key": None, "_due_ms": None,
            }  # fmt: skip
            self.world.put(OBJECT, thing)
        return thing

    def take(self, thing: Thing, kind: str, amount_minor: int, key: str | None) -> None:
        if kind != "CAPTURE":
            thing["authorized"] = amount_minor
        if kind == "AUTHORIZE":
            thing["state"] = "AUTHORIZED"
        else:
            thing.update(state="CAPTURED", captured=amount_minor)
        thing["_due_ms"] = None
        self.world.put(OBJECT, thing)
        movement_id = capture_id(thing) if kind == "CAPTURE" else charge_id(thing)
        self._moved(thing, kind.lower(), movement_id, amount_minor, key)

    def void(self, thing: Thing, key: str) -> None:
        held = thing["authorized"] if thing["state"] == "AUTHORIZED" else 0
        thing.update(state="CANCELLED", _due_ms=None)
        self.world.put(OBJECT, thing)
        if held:
            self._moved(thing, "void", void_id(thing), held, key)

    def refund(self, thing: Thing, refund_id: str, amount_minor: int, key: str | None) -> Thing:
        thing["refunded"] += amount_minor
        made = {
            "id": refund_id, "object_id": thing["id"], "amount_minor": amount_minor, "state": "SUCCEEDED", "_key": key,
        }  # fmt: skip
        self.world.put(OBJECT, thing)
        self.world.put(REFUND, made)
        self._moved(thing, "refund", refund_id, amount_minor, key)
        return made

    def record(self, thing: Thing, kind: str, movement_id: str, amount_minor: int, key: str | None) -> None:
        self.world.move(
            PROVIDER, kind, movement_id, thing["id"], amount_minor, thing["currency"],
            key=key, payment_id=thing["payment_id"], order_id=thing["order_id"],
        )  # fmt: skip

    def tell(self, thing: Thing, what: str, **more: Any) -> None:
        webhooks = self.world.webhooks
        if not webhooks.wanted:
            return
        event = {
            "id": webhooks.next_id("evt_mock_", thing["id"]), "type": f"mock.{what}", "created_ms": now_ms(),
            "object_id": thing["id"], "payment_id": thing["payment_id"], "order_id": thing["order_id"],
            "currency": thing["currency"], "state": thing["state"], **more,
        }  # fmt: skip
        webhooks.emit(PROVIDER, event, thing["id"])

    def sign(self, body: bytes) -> dict[str, str]:
        """As Stripe signs, under a name of its own."""
        stamp = now_ms() // 1000
        secret = self.world.settings.webhook_secret.encode()
        return {"Mock-Signature": f"t={stamp},v1={hmac.new(secret, b'%d.%s' % (stamp, body), sha256).hexdigest()}"}

    def _moved(self, thing: Thing, kind: str, movement_id: str, amount_minor: int, key: str | None) -> None:
        self.record(thing, kind, movement_id, amount_minor, key)
        self.tell(
            thing, EVENTS.get(kind, f"{kind}.succeeded"), provider_id=movement_id, charge_id=charge_id(thing),
            key=thing["_key"] if kind in ("charge", "authorize") else key,  # the attempt a browser completes, too
            amount_minor=amount_minor,
        )  # fmt: skip


def object_id_of(call: Thing) -> str:
    """The one it names, else the one that is made of it, always the same."""
    return str(call.get("object_id") or "mock_pi_" + digest(call["payment_id"], call["object_key"]))


def charge_id(thing: Thing) -> str:
    return _twin_of(thing, "mock_ch_")


def capture_id(thing: Thing) -> str:
    return _twin_of(thing, "mock_cap_")


def void_id(thing: Thing) -> str:
    return _twin_of(thing, "mock_void_")


def _twin_of(thing: Thing, prefix: str) -> str:
    """An object is charged, captured and voided once each: one id of each for it."""
    return prefix + str(thing["id"]).removeprefix("mock_pi_")
