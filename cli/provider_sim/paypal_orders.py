"""`/v2/checkout/orders`: create, read, patch, capture, authorize; and the shopper's approval.

Room: cli/provider_sim. developer.paypal.com/docs/api/orders/v2. Approving moves no money: capturing or
authorizing does. A means of payment is a saved wallet (`payment_source.paypal.vault_id`: of paypal_vault.py, or a test
token, which decides what happens, see stripe_cards.py), or the wallet with which the order was approved.
"""

from typing import Any
from urllib.parse import urlencode

from payment_service.cli.provider_sim.paypal_ask import (
    Ask,
    NeverAnswers,
    PaypalError,
    impossible,
    malformed,
    money,
    money_of,
    text_of,
)
from payment_service.cli.provider_sim.paypal_books import DEFAULT_REFERENCE, Books
from payment_service.cli.provider_sim.stripe_cards import CARDS, Card
from payment_service.cli.provider_sim.world import Thing

INTENTS = ("CAPTURE", "AUTHORIZE")
OPEN = ("CREATED", "PAYER_ACTION_REQUIRED", "APPROVED")
UNIT_FIELDS = ("custom_id", "invoice_id", "description", "soft_descriptor")
FRAUDULENT = "fraudulent"
"""The decline code whose payment is made and refused: an order that is COMPLETED and not paid."""


class Orders:
    def __init__(self, books: Books) -> None:
        self._books = books

    def create(self, ask: Ask) -> Thing:
        intent, units = ask.text("intent"), ask.body.get("purchase_units")
        if intent not in INTENTS:
            raise malformed("INVALID_PARAMETER_VALUE", "intent is CAPTURE or AUTHORIZE")
        if not isinstance(units, list) or len(units) != 1 or not isinstance(units[0], dict):
            raise malformed("MISSING_REQUIRED_PARAMETER", "purchase_units: one is simulated here")
        amount_minor, currency = money_of(units[0].get("amount"))
        unit = {name: text for name in UNIT_FIELDS if (text := text_of(units[0], name)) is not None}
        reference = text_of(units[0], "reference_id", 256) or DEFAULT_REFERENCE
        source = ask.table("payment_source")
        if source and ask.key is None:
            raise malformed("PAYPAL_REQUEST_ID_REQUIRED")
        if source and set(source) != {"paypal"}:
            raise impossible("PAYMENT_SOURCE_NOT_SUPPORTED", "Only PayPal wallets are simulated here.")
        wallet = source.get("paypal") or {}
        if "vault_id" in wallet:
            raise impossible("PAYMENT_SOURCE_NOT_SUPPORTED", "An order that is paid as it is made is not simulated.")
        context = wallet.get("experience_context") or {}
        order = self._books.new(
            "order", ask.key, amount_minor, currency, intent=intent,
            status="PAYER_ACTION_REQUIRED" if source else "CREATED",
            purchase_units=[{"reference_id": reference, "amount": money(amount_minor, currency), **unit}],
            _return_url=text_of(context, "return_url", 4000), _card=None, _approved_with=None,
            _authorizations=[], _captures=[], _refunds=[], **({"payment_source": {"paypal": {}}} if source else {}),
        )  # fmt: skip
        order.pop("amount")
        return self._books.put("order", order)

    def read(self, ask: Ask) -> Thing:
        return self._books.find("order", ask.match["id"])

    def patch(self, ask: Ask) -> Thing:
        """Replacing the intent, which is all that the service does, and the amount, as a page's script may."""
        order = self.read(ask)
        if order["status"] not in OPEN:
            raise impossible("ORDER_ALREADY_COMPLETED")
        unit = order["purchase_units"][0]
        amount_path = f"/purchase_units/@reference_id=='{unit['reference_id']}'/amount"
        for patch in ask.body.get("patches", []):
            if patch.get("op") != "replace" or patch.get("path") not in ("/intent", amount_path):
                raise impossible("NOT_PATCHABLE")
            if patch["path"] == amount_path:
                order["_minor"], order["_currency"] = money_of(patch.get("value"))
                unit["amount"] = money(order["_minor"], order["_currency"])
                continue
            if patch.get("value") not in INTENTS:
                raise impossible("UNSUPPORTED_INTENT")
            order["intent"] = patch["value"]
        return self._books.put("order", order)

    # --- paid ------------------------------------------------------------------------------------------------------

    def capture(self, ask: Ask) -> Thing:
        order = self._payable(ask, "CAPTURE", "ORDER_ALREADY_CAPTURED")
        card = self._tried(order, ask)
        if card.decline_code == FRAUDULENT:
            declined = self._made("capture", order, ask, "DECLINED", final_capture=True)
            self._complete(order, "capture", declined)
            self._books.emit("PAYMENT.CAPTURE.DECLINED", "capture", declined)
            return order
        pending = card.does == "process"
        capture = self._made("capture", order, ask, "PENDING" if pending else "COMPLETED", final_capture=True)
        if pending:
            capture["status_details"] = {"reason": "PENDING_REVIEW"}
            capture["_due_ms"] = ask.now_ms + self._books.world.settings.settle_ms
        self._complete(order, "capture", capture)
        if not pending:
            self._books.move("charge", capture, order, capture["_minor"], ask.key)
        self._books.emit("PAYMENT.CAPTURE.PENDING" if pending else "PAYMENT.CAPTURE.COMPLETED", "capture", capture)
        return order

    def authorize(self, ask: Ask) -> Thing:
        order = self._payable(ask, "AUTHORIZE", "ORDER_ALREADY_AUTHORIZED")
        card = self._tried(order, ask)
        pending, denied = card.does == "process", card.decline_code == FRAUDULENT
        status = "DENIED" if denied else "PENDING" if pending else "CREATED"
        held = self._made("authorization", order, ask, status)
        if pending:
            held["status_details"] = {"reason": "PENDING_REVIEW"}
            held["_due_ms"] = ask.now_ms + self._books.world.settings.settle_ms
        self._complete(order, "authorization", held)
        if status == "CREATED":
            self._books.move("authorize", held, order, held["_minor"], ask.key)
        if not denied:
            self._books.emit("PAYMENT.AUTHORIZATION.CREATED", "authorization", held)
        return order

    def _payable(self, ask: Ask, intent: str, already: str) -> Thing:
        order = self.read(ask)
        if order["status"] not in OPEN:
            raise impossible(already)
        if order["intent"] != intent:
            raise impossible("ACTION_DOES_NOT_MATCH_INTENT")
        return order

    def _tried(self, order: Thing, ask: Ask) -> Card:
        """The means of payment, tried. Raises PaypalError, and NeverAnswers."""
        card = self._means(order, ask)
        ask.moves_money = True
        links = [{"href": self._books.page(order), "rel": "payer-action", "method": "GET"}]
        match card.does:
            case "never":
                raise NeverAnswers
            case "fail":
                raise PaypalError(500)
            case "authenticate" if order["status"] != "APPROVED":
                order["status"] = "PAYER_ACTION_REQUIRED"
                self._books.put("order", order)
                raise impossible("PAYER_ACTION_REQUIRED", links=links)
            case "decline" if card.decline_code != FRAUDULENT:
                self._books.put("order", order)
                redirect = [{**links[0], "rel": "redirect"}]
                raise impossible("INSTRUMENT_DECLINED", links=redirect)
            case _:
                return card

    def _means(self, order: Thing, ask: Ask) -> Card:
        named = (ask.table("payment_source").get("paypal") or {}).get("vault_id")
        if named is None and order["status"] != "APPROVED":
            raise impossible("ORDER_NOT_APPROVED")
        name = self._books.wallet_of(named if named is not None else order["_approved_with"] or "tok_visa")
        if name is None:
            raise impossible("TOKEN_ID_NOT_FOUND")
        order["_card"] = name
        return CARDS[name]

    def _made(self, name: str, order: Thing, ask: Ask, status: str, **more: Any) -> Thing:
        unit = order["purchase_units"][0]
        carried = {name: unit[name] for name in ("custom_id", "invoice_id") if name in unit}
        return self._books.new(
            name, ask.key, order["_minor"], order["_currency"], status=status, **carried, **more,
            supplementary_data={"related_ids": {"order_id": order["id"]}}, _order=order["id"], _refunded=0,
        )  # fmt: skip

    def _complete(self, order: Thing, name: str, made: Thing) -> None:
        self._books.put(name, made)
        order["status"] = "COMPLETED"
        order[f"_{name}s"].append(made["id"])
        self._books.put("order", order)
        if name == "capture" and made["status"] == "COMPLETED":
            self._books.emit("CHECKOUT.ORDER.COMPLETED", "order", order)

    # --- the shopper -------------------------------------------------------------------------------------------------

    def approved(self, order: Thing) -> None:
        """Twice is once. Where the page leads back to tells the order's id, as PayPal's does."""
        if order["status"] not in ("CREATED", "PAYER_ACTION_REQUIRED"):
            return
        if order["_return_url"] and "token=" not in order["_return_url"]:
            mark = "&" if "?" in order["_return_url"] else "?"
            order["_return_url"] += mark + urlencode({"token": order["id"], "PayerID": "SIMULATEDPAYR"})
        order["status"] = "APPROVED"
        self._books.put("order", order)
        self._books.emit("CHECKOUT.ORDER.APPROVED", "order", order)
