"""Stripe's objects as they are kept, the events they cause and the money that moves with them.

Room: cli/provider_sim.
"""

import hmac
from hashlib import sha256
from typing import Any

from payment_service.cli.provider_sim import stripe_shapes as shapes
from payment_service.cli.provider_sim.stripe_amounts import iso_minor
from payment_service.cli.provider_sim.stripe_ask import Ask, StripeError, invalid, missing
from payment_service.cli.provider_sim.stripe_cards import CARDS, Card, card_of
from payment_service.cli.provider_sim.world import Impossible, Thing, World, now_ms, shown

PROVIDER = "stripe"
PREFIXES = {
    "payment_intent": "pi_", "charge": "ch_", "refund": "re_", "dispute": "dp_", "payment_method": "pm_",
    "customer": "cus_", "setup_intent": "seti_",
}  # fmt: skip


def kind_of(name: str) -> str:
    return f"{PROVIDER}.{name}"


class Books:
    def __init__(self, world: World) -> None:
        self.world = world

    def find(self, name: str, object_id: str, param: str = "id") -> Thing:
        """Raises StripeError 404."""
        thing = self.world.get(kind_of(name), object_id)
        if thing is None:
            raise missing(name, object_id[:100], param)
        return thing

    def get(self, name: str, object_id: str) -> Thing:
        """One that another object names."""
        thing = self.world.get(kind_of(name), object_id)
        assert thing is not None, f"{object_id} is named and not there"
        return thing

    def charge_of(self, thing: Thing) -> Thing:
        """Of a PaymentIntent, or the charge itself. Raises Impossible for those who ask through /_sim."""
        charge = thing if thing["object"] == "charge" else self.world.get(kind_of("charge"), thing["latest_charge"])
        if charge is None:
            raise Impossible("nothing was charged")
        return charge

    def put(self, thing: Thing) -> Thing:
        if "_changed_ms" in thing:
            thing["_changed_ms"] = now_ms()
        self.world.put(kind_of(thing["object"]), thing)
        return thing

    def new_id(self, name: str, ask: Ask | None) -> str:
        return self.world.new_id(PREFIXES[name], ask.key if ask is not None else None)

    def emit(self, kind: str, thing: Thing, ask: Ask | None = None) -> None:
        """`thing` as it is now. Without a request behind it (`ask` None) the event names none, as Stripe's own do."""
        if not self.world.webhooks.wanted:
            return
        key, version = (ask.key, ask.version) if ask is not None else (None, shapes.API_VERSION)
        webhooks, about = self.world.webhooks, thing["id"]
        event = shapes.event(webhooks.next_id("evt_", about), now_ms(), kind, shown(thing), key, version)
        webhooks.emit(PROVIDER, event, about)

    def move(self, kind: str, thing: Thing, intent: Thing, amount: int, key: str | None) -> None:
        """Money or a hold; `thing` is the charge, refund or dispute it moved by."""
        known = {**intent["metadata"], **thing.get("metadata", {})}
        self.world.move(
            PROVIDER, kind, thing["id"], intent["id"], iso_minor(amount, intent["currency"]), intent["currency"],
            key=key, payment_id=known.get("payment_id"), order_id=known.get("order_id"), provider_amount=amount,
        )  # fmt: skip

    def sign(self, body: bytes) -> dict[str, str]:
        """docs.stripe.com/webhooks/signature"""
        stamp = now_ms() // 1000
        secret = self.world.settings.webhook_secret.encode()
        return {"Stripe-Signature": f"t={stamp},v1={hmac.new(secret, b'%d.%s' % (stamp, body), sha256).hexdigest()}"}

    # --- means of payment ----------------------------------------------------------------------------------------

    def method_of(self, ask: Ask) -> Thing | None:
        """The one that the request names, or brings in `payment_method_data`. Raises StripeError."""
        named = ask.text("payment_method")
        if named is not None:
            return self.named_method(named, ask, "payment_method")
        given = ask.table("payment_method_data")
        return self.new_method(given, ask, "payment_method_data") if given else None

    def named_method(self, object_id: str, ask: Ask, param: str) -> Thing:
        """A saved one, or a test name such as pm_card_visa, which is a new one each time."""
        card = card_of(object_id) if object_id.startswith("pm_card_") else None
        if card is not None:
            return shapes.payment_method(self.new_id("payment_method", ask), ask.now_ms, card)
        method = self.world.get(kind_of("payment_method"), object_id)
        if method is None:
            raise invalid(f"No such PaymentMethod: '{object_id[:100]}'", param, "resource_missing")
        return method

    def new_method(self, given: Thing, ask: Ask, param: str = "") -> Thing:
        def at(name: str) -> str:
            return f"{param}[{name}]" if param else name

        if given.get("type") != "card":
            raise invalid("Only cards are simulated here.", at("type"))
        card_given = given.get("card")
        token = card_given.get("token") if isinstance(card_given, dict) else None
        if not isinstance(token, str):
            raise invalid("Sending card numbers is not possible here: use a test token.", at("card"))
        card = card_of(token) if token.startswith("tok_") else None
        if card is None:
            raise invalid(f"No such token: '{token[:40]}'", at("card") + "[token]", "resource_missing")
        metadata = Ask(given, {}, None, ask.version, ask.now_ms).metadata()
        return shapes.payment_method(self.new_id("payment_method", ask), ask.now_ms, card, metadata=metadata)

    def usable(self, method: Thing, customer: str | None) -> Card:
        """Raises StripeError when it belongs to somebody else or was used up."""
        if method["customer"] is not None and method["customer"] != customer:
            raise invalid(
                f"The PaymentMethod {method['id']} belongs to a Customer; pass the same one with it.", "payment_method"
            )
        if method["_used"] and method["customer"] is None:
            raise invalid(
                "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment,"
                " shared with a connected account without Customer attachment, or was detached from a Customer. It may"
                " not be used again.", "payment_method",
            )  # fmt: skip
        return CARDS[method["_card"]]

    def decline_of(self, card: Card, **more: Any) -> StripeError:
        code: Thing = {"decline_code": card.decline_code} if card.decline_code is not None else {}
        return StripeError(402, "card_error", card.message, began=True, code=card.code, **code, **more)
