"""`/v1/refunds`, `/v1/charges`, `/v1/disputes`, and what the dashboard and the bank do to them.

Room: cli/provider_sim. docs.stripe.com/api/refunds, docs.stripe.com/refunds, docs.stripe.com/disputes
"""

from typing import Any

from payment_service.cli.provider_sim import stripe_shapes as shapes
from payment_service.cli.provider_sim.stripe_ask import Ask, StripeError, invalid
from payment_service.cli.provider_sim.stripe_books import Books, kind_of
from payment_service.cli.provider_sim.stripe_cards import CARDS
from payment_service.cli.provider_sim.stripe_lists import page
from payment_service.cli.provider_sim.world import Impossible, Thing, now_ms

REASONS = (None, "duplicate", "fraudulent", "requested_by_customer")
OF_CREATE = frozenset(
    ("amount", "charge", "expand", "instructions_email", "metadata", "payment_intent", "reason",
     "refund_application_fee", "reverse_transfer")
)  # fmt: skip


def _no(message: str, **more: Any) -> StripeError:
    return StripeError(400, "invalid_request_error", message, began=True, **more)


class Refunds:
    def __init__(self, books: Books) -> None:
        self._books = books

    def create(self, ask: Ask) -> Thing:
        ask.only(OF_CREATE)
        reason, amount, metadata = ask.text("reason"), ask.number("amount"), ask.metadata()
        if reason not in REASONS:
            raise invalid("Invalid reason", "reason")
        if amount is not None and amount < 1:
            raise invalid("This value must be greater than or equal to 1.", "amount", "parameter_invalid_integer")
        charge = self._charge_of(ask)
        ask.moves_money = True
        return self._refund(charge, amount, reason, metadata, ask)

    def read(self, ask: Ask) -> Thing:
        return self._books.find("refund", ask.match["id"], "id")

    def update(self, ask: Ask) -> Thing:
        ask.only({"metadata", "expand"})
        refund = self.read(ask)
        refund["metadata"] = ask.metadata(refund["metadata"])
        return self._books.put(refund)

    def cancel(self, ask: Ask) -> Thing:
        """Only for refunds that wait for the shopper, which cards' never do."""
        refund = self.read(ask)
        raise _no(f"A refund with a status of {refund['status']} cannot be canceled.")

    def list(self, ask: Ask) -> Thing:
        ask.only({"charge", "created", "ending_before", "expand", "limit", "payment_intent", "starting_after"})
        intent, charge = ask.text("payment_intent"), ask.text("charge")
        found = [
            one
            for one in self._books.world.all(kind_of("refund"))
            if intent in (None, one["payment_intent"]) and charge in (None, one["charge"])
        ]
        return page(ask, found, "/v1/refunds")

    def read_charge(self, ask: Ask) -> Thing:
        return self._books.find("charge", ask.match["id"], "charge")

    def list_charges(self, ask: Ask) -> Thing:
        ask.only({"created", "customer", "ending_before", "expand", "limit", "payment_intent", "starting_after"})
        intent = ask.text("payment_intent")
        found = [one for one in self._books.world.all(kind_of("charge")) if intent in (None, one["payment_intent"])]
        return page(ask, found, "/v1/charges")

    # --- without a request to the API ----------------------------------------------------------------------------

    def made_in_dashboard(self, thing: Thing, given: Thing) -> Thing:
        """Of a PaymentIntent or a charge; nobody's key, no metadata of ours."""
        charge = self._books.charge_of(thing)
        try:
            return self._refund(charge, given.get("amount_minor"), given.get("reason"), {}, None)
        except StripeError as error:
            raise Impossible(str(error)) from error

    def settled(self, refund: Thing) -> None:
        """A pending one is through, or one that seemed through fails after all."""
        if refund["status"] == "pending":
            refund.update(status="succeeded", pending_reason=None)
            self._books.put(refund)
            self._books.move("refund", refund, self._intent_of(refund), refund["amount"], refund["_key"])
            self._tell_updated(refund)
        else:
            self.failed(refund, {})

    def failed(self, refund: Thing, given: Thing) -> Thing:
        """The bank sends the money back: it is ours again (docs.stripe.com/refunds#failed-refunds)."""
        if refund["status"] not in ("succeeded", "pending"):
            raise Impossible(f"it is {refund['status']}")
        moved = refund["status"] == "succeeded"
        refund.update(
            status="failed", failure_reason=given.get("reason", "expired_or_canceled_card"), _due_ms=None,
            failure_balance_transaction=f"txn_failed_{refund['id']}",
        )  # fmt: skip
        refund.pop("pending_reason", None)
        charge = self._books.get("charge", refund["charge"])
        charge.update(amount_refunded=charge["amount_refunded"] - refund["amount"], refunded=False)
        self._books.put(charge)
        self._books.put(refund)
        if moved:
            self._books.move("refund_failed", refund, self._intent_of(refund), refund["amount"], None)
        self._books.emit("refund.failed", refund)
        self._tell_updated(refund)
        return refund

    # --- one refund ----------------------------------------------------------------------------------------------

    def _charge_of(self, ask: Ask) -> Thing:
        named, intent_id = ask.text("charge"), ask.text("payment_intent")
        if named is not None:
            return self._books.find("charge", named, "charge")
        if intent_id is None:
            raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
        intent = self._books.find("payment_intent", intent_id, "payment_intent")
        charge = self._books.world.get(kind_of("charge"), intent["latest_charge"])
        if charge is None or charge["status"] != "succeeded":
            raise _no(f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.")
        return charge

    def _refund(
        self, charge: Thing, amount: int | None, reason: str | None, metadata: dict[str, str], ask: Ask | None
    ) -> Thing:
        left = charge["amount"] - charge["amount_refunded"]
        amount = left if amount is None else amount
        if not charge["captured"]:
            raise _no(
                f"This uncaptured Charge was created by a PaymentIntent ({charge['payment_intent']}). You must cancel"
                " the PaymentIntent to reverse the authorization instead of refunding the Charge directly."
            )
        if charge["disputed"]:
            raise _no(f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
        if left == 0:
            raise _no(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        if amount > left:
            raise _no(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount")
        books, way = self._books, CARDS[charge["_card"]].refund
        more: Thing = {"status": "pending", "pending_reason": "processing"} if way == "pending" else {}
        refund = shapes.refund(
            books.new_id("refund", ask), now_ms(), charge, amount, reason=reason, metadata=metadata,
            _key=ask.key if ask is not None else None,
            _due_ms=None if way == "succeeded" else now_ms() + books.world.settings.settle_ms, **more,
        )  # fmt: skip
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        books.put(charge)
        books.put(refund)
        if refund["status"] == "succeeded":
            books.move("refund", refund, self._intent_of(refund), amount, refund["_key"])
        books.emit("refund.created", refund, ask)
        books.emit("charge.refunded", charge, ask)
        return refund

    def _intent_of(self, thing: Thing) -> Thing:
        return self._books.get("payment_intent", thing["payment_intent"])

    def _tell_updated(self, refund: Thing) -> None:
        self._books.emit("refund.updated", refund)
        self._books.emit("charge.refund.updated", refund)


class Disputes:
    def __init__(self, books: Books) -> None:
        self._books = books

    def read(self, ask: Ask) -> Thing:
        return self._books.find("dispute", ask.match["id"], "dispute")

    def list(self, ask: Ask) -> Thing:
        ask.only({"charge", "created", "ending_before", "expand", "limit", "payment_intent", "starting_after"})
        intent, charge = ask.text("payment_intent"), ask.text("charge")
        found = [
            one
            for one in self._books.world.all(kind_of("dispute"))
            if intent in (None, one["payment_intent"]) and charge in (None, one["charge"])
        ]
        return page(ask, found, "/v1/disputes")

    def asked_for(self, thing: Thing, given: Thing) -> Thing:
        """Through /_sim, of a PaymentIntent or a charge."""
        charge = self._books.charge_of(thing)
        if not charge["captured"] or charge["disputed"]:
            raise Impossible("only money that was taken is disputed, and once")
        amount = int(given.get("amount_minor") or charge["amount_captured"])
        if not 1 <= amount <= charge["amount_captured"]:
            raise Impossible("more than was taken")
        return self.open(charge, amount, given.get("reason", "fraudulent"))

    def open(self, charge: Thing, amount: int, reason: str) -> Thing:
        """The money is gone from that moment (docs.stripe.com/disputes/how-disputes-work)."""
        books = self._books
        dispute = shapes.dispute(books.world.new_id("dp_", charge["id"]), now_ms(), charge, amount, reason)
        charge["disputed"] = True
        books.put(charge)
        books.put(dispute)
        books.move("dispute", dispute, self._intent_of(dispute), amount, None)
        books.emit("charge.dispute.created", dispute)
        books.emit("charge.dispute.funds_withdrawn", dispute)
        return dispute

    def won(self, dispute: Thing, _: Thing) -> Thing:
        self._close(dispute, "won")
        self._books.emit("charge.dispute.funds_reinstated", dispute)
        return dispute

    def lost(self, dispute: Thing, _: Thing) -> Thing:
        self._close(dispute, "lost")
        return dispute

    def _close(self, dispute: Thing, status: str) -> None:
        if dispute["status"] in ("won", "lost"):
            raise Impossible(f"it is {dispute['status']}")
        dispute["status"] = status
        self._books.put(dispute)
        self._books.move(f"dispute_{status}", dispute, self._intent_of(dispute), dispute["amount"], None)
        self._books.emit("charge.dispute.closed", dispute)

    def _intent_of(self, dispute: Thing) -> Thing:
        return self._books.get("payment_intent", dispute["payment_intent"])
