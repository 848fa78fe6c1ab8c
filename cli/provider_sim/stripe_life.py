"""What becomes of a PaymentIntent: paid, declined, waiting for the shopper, captured, cancelled, expired.

Room: cli/provider_sim. docs.stripe.com/payments/paymentintents/lifecycle. Nothing here reads a request but for its
key, which goes to the movement; a browser and the passing of time have none.
"""

from collections.abc import Callable
from typing import Any

from payment_service.cli.provider_sim import stripe_shapes as shapes
from payment_service.cli.provider_sim.stripe_ask import Ask, NeverAnswers, StripeError
from payment_service.cli.provider_sim.stripe_books import Books
from payment_service.cli.provider_sim.stripe_cards import CARDS, Card
from payment_service.cli.provider_sim.world import Impossible, Thing, now_ms, shown

Disputed = Callable[[Thing, int, str], Thing]
"""(charge, amount, reason) -> the dispute."""
CANCELLABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")


def unexpected_state(intent: Thing, message: str) -> StripeError:
    return StripeError(
        400, "invalid_request_error", message, began=True, code="payment_intent_unexpected_state",
        payment_intent=shown(intent),
    )  # fmt: skip


class Life:
    def __init__(self, books: Books, disputed: Disputed) -> None:
        self._books = books
        self._disputed = disputed

    # --- confirmed -----------------------------------------------------------------------------------------------

    def confirm(self, intent: Thing, method: Thing, card: Card, ask: Ask) -> None:
        """Raises StripeError for a decline, with the intent as it is then in its body."""
        ask.moves_money = True
        if card.does == "never":
            raise NeverAnswers
        if card.does == "fail":
            raise StripeError(500, "api_error", "An unknown error occurred", began=True)
        books = self._books
        intent.update(payment_method=method["id"], next_action=None, _key=ask.key, _due_ms=None)
        books.put(method)
        if card.does == "authenticate" and (ask.flag("off_session") or ask.flag("error_on_requires_action")):
            required = "authentication_required"
            card = Card(does="decline", code=required, decline_code=required, message="Authentication is required.")
        match card.does:
            case "decline":
                self._decline(intent, method, card, ask)
            case "authenticate":
                intent.update(status="requires_action", next_action=self._action(intent, ask))
                books.put(intent)
                books.emit("payment_intent.requires_action", intent, ask)
            case "process":
                due_ms = ask.now_ms + books.world.settings.settle_ms
                intent.update(status="processing", processing={"type": "card"}, _due_ms=due_ms)
                books.put(intent)
                books.emit("payment_intent.processing", intent, ask)
            case _:
                self._pay(intent, ask.key, ask)

    def _action(self, intent: Thing, ask: Ask) -> Thing:
        if ask.flag("use_stripe_sdk") or intent["_return_url"] is None:
            return {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect",
                    "stripe_js": self._page(intent)}}  # fmt: skip
        return {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": intent["_return_url"], "url": self._page(intent)},
        }

    def _page(self, intent: Thing) -> str:
        return f"{self._books.world.settings.public_url}/_sim/approve/{intent['id']}"

    def _decline(self, intent: Thing, method: Thing, card: Card, ask: Ask) -> None:
        books = self._books
        failed = shapes.charge(
            books.new_id("charge", ask), ask.now_ms, intent, method, amount_captured=0, captured=False, paid=False,
            status="failed", failure_code=card.code, failure_message=card.message, balance_transaction=None,
            outcome={"network_status": "declined_by_network", "reason": card.decline_code or card.code,
                     "risk_level": "normal", "seller_message": card.message, "type": "issuer_declined"},
        )  # fmt: skip
        error = books.decline_of(card, charge=failed["id"], payment_method=shown(method))
        self._unpaid(intent, {**error.body["error"]}, latest_charge=failed["id"])
        books.put(failed)
        books.put(intent)
        books.emit("charge.failed", failed, ask)
        books.emit("payment_intent.payment_failed", intent, ask)
        error.body["error"]["payment_intent"] = shown(intent)
        raise error

    def _unpaid(self, intent: Thing, why: Thing, **more: Any) -> None:
        intent.update(
            status="requires_payment_method", payment_method=None, last_payment_error=why, next_action=None,
            processing=None, **more,
        )  # fmt: skip

    # --- paid ----------------------------------------------------------------------------------------------------

    def _pay(self, intent: Thing, key: str | None, ask: Ask | None = None) -> None:
        """The charge, and with it the money or the hold."""
        books = self._books
        method = books.get("payment_method", intent["payment_method"])
        manual = intent["capture_method"] == "manual"
        held: Thing = {"captured": False, "amount_captured": 0, "balance_transaction": None} if manual else {}
        made = shapes.charge(books.world.new_id("ch_", intent["_key"]), now_ms(), intent, method, **held)
        intent.update(
            status="requires_capture" if manual else "succeeded", latest_charge=made["id"], next_action=None,
            processing=None, last_payment_error=None, amount_capturable=intent["amount"] if manual else 0,
            amount_received=0 if manual else intent["amount"],
        )  # fmt: skip
        method["_used"] = True
        if intent["setup_future_usage"] is not None and intent["customer"] is not None:
            method["customer"] = intent["customer"]
        for thing in (method, made, intent):
            books.put(thing)
        books.move("authorize" if manual else "charge", made, intent, intent["amount"], key)
        books.emit("charge.succeeded", made, ask)
        books.emit("payment_intent.amount_capturable_updated" if manual else "payment_intent.succeeded", intent, ask)
        card = CARDS[method["_card"]]
        if card.dispute is not None:
            self._disputed(made, intent["amount"], card.dispute)

    def settled(self, intent: Thing) -> None:
        """What was processing is through, under the key of the call that began it."""
        if intent["status"] == "processing":
            self._pay(intent, intent["_key"])

    def approved(self, intent: Thing) -> None:
        """The shopper authenticated: the browser moves the money, under nobody's key. Twice is once."""
        if intent["status"] == "requires_action":
            self._pay(intent, None)

    def denied(self, intent: Thing, _: Thing) -> Thing:
        """The shopper did not."""
        if intent["status"] != "requires_action":
            raise Impossible(f"it is {intent['status']}")
        message = "We are unable to authenticate your payment method. Please choose a different one and try again."
        why = {
            "type": "invalid_request_error", "code": "payment_intent_authentication_failure", "message": message,
            "payment_method": shown(self._books.get("payment_method", intent["payment_method"])),
        }  # fmt: skip
        self._unpaid(intent, why)
        self._books.put(intent)
        self._books.emit("payment_intent.payment_failed", intent)
        return intent

    # --- captured, cancelled, expired ----------------------------------------------------------------------------

    def capture(self, intent: Thing, amount: int, ask: Ask) -> None:
        """The rest of a partial capture is given back; the charge counts it as refunded, though no refund was made
        (github.com/solidusio/solidus_stripe/pull/268)."""
        ask.moves_money = True
        books = self._books
        made = books.get("charge", intent["latest_charge"])
        made.update(
            captured=True, amount_captured=amount, amount_refunded=made["amount"] - amount,
            balance_transaction=f"txn_{made['id']}",
        )  # fmt: skip
        intent.update(status="succeeded", amount_capturable=0, amount_received=amount)
        books.put(made)
        books.put(intent)
        books.move("capture", made, intent, amount, ask.key)
        books.emit("charge.captured", made, ask)
        books.emit("payment_intent.succeeded", intent, ask)

    def cancel(self, intent: Thing, reason: str | None, ask: Ask) -> None:
        ask.moves_money = True
        self._end(intent, reason, "void", ask)

    def expire(self, intent: Thing, _: Thing) -> Thing:
        """The bank lets a hold go that nobody captured in time."""
        if intent["status"] != "requires_capture":
            raise Impossible(f"it is {intent['status']}")
        self._end(intent, "automatic", "expire", None)
        return intent

    def _end(self, intent: Thing, reason: str | None, movement: str, ask: Ask | None) -> None:
        """A hold that is let go looks like a refund: its charge is `refunded` and tells so in charge.refunded, with
        `captured` false (github.com/odoo/odoo/pull/259230)."""
        books = self._books
        held = intent["amount_capturable"]
        intent.update(
            status="canceled", canceled_at=now_ms() // 1000, cancellation_reason=reason, amount_capturable=0,
            next_action=None, _due_ms=None,
        )  # fmt: skip
        books.put(intent)
        if held:
            made = books.get("charge", intent["latest_charge"])
            made.update(refunded=True, amount_refunded=made["amount"])
            books.put(made)
            books.move(movement, made, intent, held, ask.key if ask is not None else None)
            books.emit("charge.refunded" if movement == "void" else "charge.expired", made, ask)
        books.emit("payment_intent.canceled", intent, ask)
