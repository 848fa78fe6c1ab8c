"""`/v2/payments`: authorizations, captures, refunds; `/v1/customer/disputes`; what dashboard and bank do to them.

Room: cli/provider_sim. developer.paypal.com/docs/api/payments/v2
"""

from payment_service.cli.provider_sim.paypal_ask import Ask, PaypalError, impossible, money, money_of, text_of
from payment_service.cli.provider_sim.paypal_books import Books
from payment_service.cli.provider_sim.world import Impossible, Thing, now_ms

HELD = ("CREATED", "PARTIALLY_CAPTURED")
TAKEN = ("COMPLETED", "PARTIALLY_REFUNDED")


class Authorizations:
    def __init__(self, books: Books) -> None:
        self._books = books

    def read(self, ask: Ask) -> Thing:
        return self._books.find("authorization", ask.match["id"])

    def capture(self, ask: Ask) -> Thing:
        """Up to what is held; that some accounts may take 115 % of it is not simulated."""
        held = self.read(ask)
        if held["status"] == "VOIDED":
            raise impossible("AUTHORIZATION_VOIDED")
        if held["status"] == "CAPTURED":
            raise impossible("AUTHORIZATION_ALREADY_CAPTURED")
        if held["status"] not in HELD:
            raise impossible("AUTHORIZATION_DENIED")
        left = held["_minor"] - held.get("_captured", 0)
        amount = money_of(ask.body["amount"], held["_currency"])[0] if "amount" in ask.body else left
        if amount > left:
            raise impossible("MAX_CAPTURE_AMOUNT_EXCEEDED")
        ask.moves_money = True
        order = self._books.order_of(held)
        related = {"order_id": order["id"], "authorization_id": held["id"]}
        invoice_id = ask.text("invoice_id") or held.get("invoice_id")
        capture = self._books.new(
            "capture", ask.key, amount, held["_currency"], status="COMPLETED",
            final_capture=ask.body.get("final_capture") is True, supplementary_data={"related_ids": related},
            _order=order["id"], _refunded=0, **({"custom_id": held["custom_id"]} if "custom_id" in held else {}),
            **({"invoice_id": invoice_id} if invoice_id else {}),
        )  # fmt: skip
        held["_captured"] = held.get("_captured", 0) + amount
        done = capture["final_capture"] or held["_captured"] == held["_minor"]
        held["status"] = "CAPTURED" if done else "PARTIALLY_CAPTURED"
        order["_captures"].append(capture["id"])
        for name, thing in (("capture", capture), ("authorization", held), ("order", order)):
            self._books.put(name, thing)
        self._books.move("capture", capture, order, amount, ask.key)
        self._books.emit("PAYMENT.CAPTURE.COMPLETED", "capture", capture)
        return capture

    def void(self, ask: Ask) -> Thing:
        held = self.read(ask)
        if held["status"] == "VOIDED":
            raise impossible("PREVIOUSLY_VOIDED")
        if held["status"] not in ("CREATED", "PENDING"):
            raise impossible("PREVIOUSLY_CAPTURED")
        ask.moves_money = True
        self._end(held, "void", ask.key)
        return held

    def expire(self, thing: Thing, _: Thing) -> Thing:
        """Of an order or an authorization: the hold ends by itself (29 days)."""
        held = self._books.all("authorization", thing["_authorizations"])[0] if thing.get("_authorizations") else thing
        if held.get("status") not in HELD or "_captures" in held:
            raise Impossible("nothing is held")
        self._end(held, "expire", None)
        return held

    def settled(self, held: Thing) -> None:
        if held["status"] == "PENDING":
            held.pop("status_details", None)
            held["status"] = "CREATED"
            self._books.put("authorization", held)
            self._books.move("authorize", held, self._books.order_of(held), held["_minor"], held["_key"])
            self._books.emit("PAYMENT.AUTHORIZATION.CREATED", "authorization", held)

    def _end(self, held: Thing, movement: str, key: str | None) -> None:
        order, was = self._books.order_of(held), held["status"]
        held.update(status="VOIDED", _due_ms=None)
        self._books.put("authorization", held)
        if not order["_captures"]:
            order["status"] = "VOIDED"
            self._books.put("order", order)
        if was in HELD:
            self._books.move(movement, held, order, held["_minor"] - held.get("_captured", 0), key)
        self._books.emit("PAYMENT.AUTHORIZATION.VOIDED", "authorization", held)


class Captures:
    def __init__(self, books: Books) -> None:
        self._books = books

    def read(self, ask: Ask) -> Thing:
        return self._books.find("capture", ask.match["id"])

    def read_refund(self, ask: Ask) -> Thing:
        return self._books.find("refund", ask.match["id"])

    def refund(self, ask: Ask) -> Thing:
        capture = self.read(ask)
        amount = money_of(ask.body["amount"], capture["_currency"])[0] if "amount" in ask.body else None
        ours = {name: text for name in ("custom_id", "invoice_id", "note_to_payer")
                if (text := text_of(ask.body, name, 255)) is not None}  # fmt: skip
        ask.moves_money = True
        return self._refund(capture, amount, ask.key, ours)

    def made_in_dashboard(self, thing: Thing, given: Thing) -> Thing:
        """Of an order or a capture; nobody's key, and what the capture carries."""
        capture = self._books.taken(thing)
        carried: Thing = {name: capture[name] for name in ("custom_id", "invoice_id") if name in capture}
        try:
            return self._refund(capture, given.get("amount_minor"), None, carried)
        except PaypalError as error:
            raise Impossible(str(error)) from error

    def settled(self, capture: Thing) -> None:
        """What was pending is through, under the key of the call that began it."""
        if capture["status"] != "PENDING":
            return
        capture.pop("status_details", None)
        capture["status"] = "COMPLETED"
        self._books.put("capture", capture)
        order = self._books.order_of(capture)
        self._books.move("charge", capture, order, capture["_minor"], capture["_key"])
        self._books.emit("PAYMENT.CAPTURE.COMPLETED", "capture", capture)

    def denied(self, thing: Thing, _: Thing) -> Thing:
        """PayPal looked at what was pending, and says no."""
        capture = self._books.taken(thing)
        if capture["status"] != "PENDING":
            raise Impossible(f"it is {capture['status']}")
        capture.update(status="DECLINED", _due_ms=None)
        capture.pop("status_details", None)
        self._books.put("capture", capture)
        self._books.emit("PAYMENT.CAPTURE.DENIED", "capture", capture)
        return capture

    def _refund(self, capture: Thing, amount: int | None, key: str | None, carried: Thing) -> Thing:
        left = capture["_minor"] - capture["_refunded"]
        amount = left if amount is None else amount
        if capture["status"] == "PENDING":
            raise impossible("PENDING_CAPTURE")
        if capture["status"] == "REFUNDED":
            raise impossible("CAPTURE_FULLY_REFUNDED")
        if capture["status"] not in TAKEN:
            raise impossible("REFUND_NOT_ALLOWED")
        if capture.get("_disputed"):
            raise impossible("TRANSACTION_DISPUTED")
        if amount > left:
            raise impossible("REFUND_AMOUNT_EXCEEDED")
        books, order = self._books, self._books.order_of(capture)
        way = books.card_of(order).refund
        refund = books.new(
            "refund", key, amount, capture["_currency"], status="PENDING" if way == "pending" else "COMPLETED",
            **carried, _capture=capture["id"], _order=order["id"],
        )  # fmt: skip
        if way == "pending":
            refund["status_details"] = {"reason": "ECHECK"}
        if way != "succeeded":
            refund["_due_ms"] = now_ms() + books.world.settings.settle_ms
        self._count(capture, amount)
        order["_refunds"].append(refund["id"])
        books.put("refund", refund)
        books.put("order", order)
        if refund["status"] == "COMPLETED":
            books.move("refund", refund, order, amount, key)
        told = "PAYMENT.CAPTURE.REFUNDED" if refund["status"] == "COMPLETED" else "PAYMENT.REFUND.PENDING"
        books.emit(told, "refund", refund)
        return refund

    def refund_settled(self, refund: Thing) -> None:
        """A pending one is through, or one that seemed through fails after all."""
        if refund["status"] == "COMPLETED":
            self.refund_failed(refund, {})
        elif refund["status"] == "PENDING":
            refund.pop("status_details", None)
            refund["status"] = "COMPLETED"
            self._books.put("refund", refund)
            order = self._books.order_of(refund)
            self._books.move("refund", refund, order, refund["_minor"], refund["_key"])
            self._books.emit("PAYMENT.CAPTURE.REFUNDED", "refund", refund)

    def refund_failed(self, refund: Thing, _: Thing) -> Thing:
        if refund["status"] not in ("COMPLETED", "PENDING"):
            raise Impossible(f"it is {refund['status']}")
        moved = refund["status"] == "COMPLETED"
        refund.update(status="FAILED", _due_ms=None)
        refund.pop("status_details", None)
        self._count(self._books.get("capture", refund["_capture"]), -refund["_minor"])
        self._books.put("refund", refund)
        if moved:
            self._books.move("refund_failed", refund, self._books.order_of(refund), refund["_minor"], None)
        self._books.emit("PAYMENT.REFUND.FAILED", "refund", refund)
        return refund

    def _count(self, capture: Thing, amount: int) -> None:
        capture["_refunded"] += amount
        part = "PARTIALLY_REFUNDED" if capture["_refunded"] else "COMPLETED"
        capture["status"] = "REFUNDED" if capture["_refunded"] == capture["_minor"] else part
        self._books.put("capture", capture)


class Disputes:
    """developer.paypal.com/docs/api/customer-disputes/v1"""

    def __init__(self, books: Books) -> None:
        self._books = books

    def read(self, ask: Ask) -> Thing:
        return self._books.find("dispute", ask.match["id"])

    def asked_for(self, thing: Thing, given: Thing) -> Thing:
        """The money is held from that moment."""
        books, capture = self._books, self._books.taken(thing)
        if capture["status"] not in TAKEN or capture.get("_disputed"):
            raise Impossible("only money that was taken is disputed, and once")
        amount = int(given.get("amount_minor") or capture["_minor"])
        if not 1 <= amount <= capture["_minor"]:
            raise Impossible("more than was taken")
        about = {"seller_transaction_id": capture["id"], "gross_amount": capture["amount"]}
        about |= {"custom": capture["custom_id"]} if "custom_id" in capture else {}
        dispute = books.new(
            "dispute", f"dispute of {capture['id']}", amount, capture["_currency"],
            reason=given.get("reason", "MERCHANDISE_OR_SERVICE_NOT_RECEIVED"), status="WAITING_FOR_SELLER_RESPONSE",
            dispute_amount=money(amount, capture["_currency"]), disputed_transactions=[about],
            dispute_life_cycle_stage="CHARGEBACK", _order=capture["_order"],
        )  # fmt: skip
        dispute.pop("amount")
        dispute["id"] = dispute["dispute_id"] = f"PP-D-{dispute['id'][:8]}"
        capture["_disputed"] = True
        books.put("capture", capture)
        books.put("dispute", dispute)
        books.move("dispute", dispute, books.order_of(dispute), amount, None)
        books.emit("CUSTOMER.DISPUTE.CREATED", "dispute", dispute)
        return dispute

    def won(self, dispute: Thing, _: Thing) -> Thing:
        return self._close(dispute, "won", "RESOLVED_SELLER_FAVOUR")

    def lost(self, dispute: Thing, _: Thing) -> Thing:
        return self._close(dispute, "lost", "RESOLVED_BUYER_FAVOUR")

    def _close(self, dispute: Thing, end: str, outcome: str) -> Thing:
        if dispute["status"] == "RESOLVED":
            raise Impossible("it is RESOLVED")
        refunded = dispute["dispute_amount"] if end == "lost" else money(0, dispute["_currency"])
        dispute.update(status="RESOLVED", dispute_outcome={"outcome_code": outcome, "amount_refunded": refunded})
        self._books.put("dispute", dispute)
        self._books.move(f"dispute_{end}", dispute, self._books.order_of(dispute), dispute["_minor"], None)
        self._books.emit("CUSTOMER.DISPUTE.RESOLVED", "dispute", dispute)
        return dispute
