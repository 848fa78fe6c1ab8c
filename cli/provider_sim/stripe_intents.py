"""`/v1/payment_intents`: create, update, confirm, capture, cancel, read, list, search.

Room: cli/provider_sim. docs.stripe.com/api/payment_intents
"""

import re
from collections.abc import Iterable

from payment_service.cli.provider_sim import stripe_shapes as shapes
from payment_service.cli.provider_sim.stripe_amounts import checked, currency_of
from payment_service.cli.provider_sim.stripe_ask import Ask, invalid
from payment_service.cli.provider_sim.stripe_books import Books, kind_of
from payment_service.cli.provider_sim.stripe_life import CANCELLABLE, Life, unexpected_state
from payment_service.cli.provider_sim.stripe_lists import page
from payment_service.cli.provider_sim.world import Thing, shown

SEARCH_LAG_MS = 2000
"""A search knows an object this long after its last change; really up to a minute (docs.stripe.com/search)."""
OF_CONFIRM = frozenset(
    ("error_on_requires_action", "expand", "mandate", "mandate_data", "off_session", "payment_method",
     "payment_method_data", "payment_method_options", "receipt_email", "return_url", "setup_future_usage", "shipping",
     "use_stripe_sdk", "capture_method")
)  # fmt: skip
OF_UPDATE = frozenset(
    ("amount", "currency", "customer", "description", "expand", "metadata", "payment_method", "payment_method_data",
     "payment_method_options", "payment_method_types", "receipt_email", "setup_future_usage", "shipping",
     "statement_descriptor", "statement_descriptor_suffix", "capture_method")
)  # fmt: skip
OF_CREATE = OF_CONFIRM | OF_UPDATE | {"automatic_payment_methods", "confirm", "confirmation_method"}
PLAIN = ("description", "receipt_email", "setup_future_usage", "statement_descriptor", "statement_descriptor_suffix")
"""Taken as they are."""
CAPTURE_METHODS = ("automatic", "automatic_async", "manual")
CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
REASONS = (None, "duplicate", "fraudulent", "requested_by_customer", "abandoned")
_CLAUSE = re.compile(r"""\s*(status|currency|customer|metadata\[["']([^"']+)["']\])\s*:\s*["']([^"']*)["']\s*""")


class Intents:
    def __init__(self, books: Books, life: Life) -> None:
        self._books = books
        self._life = life

    def create(self, ask: Ask) -> Thing:
        ask.only(OF_CREATE)
        currency = currency_of(ask.needed("currency"))
        amount = checked(ask.number("amount"), currency)
        confirms = ask.flag("confirm")
        if not confirms and (only := ask.params.keys() & {"off_session", "return_url", "error_on_requires_action"}):
            name = min(only)
            raise invalid(f"`{name}` can only be given together with `confirm=true`.", name)
        intent = shapes.payment_intent(
            self._books.new_id("payment_intent", ask), ask.now_ms, amount, currency,
            metadata=ask.metadata(), capture_method=_capture_method(ask) or "automatic_async",
            customer=self._customer(ask), **{name: ask.text(name) for name in PLAIN}, **_offered(ask),
        )  # fmt: skip
        method = self._books.method_of(ask)
        if confirms:
            self._ready(intent, method, ask)
        elif method is not None:
            self._books.usable(method, intent["customer"])
            self._books.put(method)
            intent.update(payment_method=method["id"], status="requires_confirmation")
        self._books.put(intent)
        self._books.emit("payment_intent.created", intent, ask)
        if confirms:
            self._confirm(intent, method, ask)
        return intent

    def update(self, ask: Ask) -> Thing:
        ask.only(OF_UPDATE)
        intent = self._named(ask)
        changed = ask.params.keys() - {"expand"}
        if intent["status"] not in CONFIRMABLE and changed - {"metadata", "description"}:
            raise unexpected_state(
                intent, f"This PaymentIntent's {min(changed)} could not be updated because it has a status of"
                f" {intent['status']}.",
            )  # fmt: skip
        currency = currency_of(ask.text("currency") or intent["currency"])
        amount = checked(ask.number("amount") or intent["amount"], currency)
        method = self._books.method_of(ask)
        if method is not None:
            self._books.usable(method, intent["customer"])
            self._books.put(method)
            intent.update(payment_method=method["id"], status="requires_confirmation", next_action=None)
        intent.update({name: ask.text(name) for name in PLAIN if name in ask.params})
        intent.update(
            amount=amount, currency=currency, metadata=ask.metadata(intent["metadata"]),
            customer=self._customer(ask) or intent["customer"],
            capture_method=_capture_method(ask) or intent["capture_method"],
        )  # fmt: skip
        return self._books.put(intent)

    def confirm(self, ask: Ask) -> Thing:
        ask.only(OF_CONFIRM)
        intent = self._named(ask)
        if intent["status"] not in CONFIRMABLE:
            raise unexpected_state(
                intent,
                f"You cannot confirm this PaymentIntent because it has already {intent['status']} after being"
                " previously confirmed."
                if intent["status"] == "succeeded"
                else f"This PaymentIntent's status is {intent['status']}: it cannot be confirmed.",
            )
        method = self._books.method_of(ask)
        if method is None and intent["status"] != "requires_action" and intent["payment_method"] is not None:
            method = self._books.get("payment_method", intent["payment_method"])
        if method is None and intent["status"] == "requires_action":
            return intent  # asked again while the shopper has to act: it is as it was
        self._ready(intent, method, ask)
        intent["capture_method"] = _capture_method(ask) or intent["capture_method"]
        self._confirm(intent, method, ask)
        return intent

    def capture(self, ask: Ask) -> Thing:
        ask.only({"amount_to_capture", "expand", "final_capture", "metadata", "statement_descriptor",
                  "statement_descriptor_suffix"})  # fmt: skip
        intent, amount = self._named(ask), ask.number("amount_to_capture")
        if intent["status"] != "requires_capture":
            raise unexpected_state(
                intent, f"This PaymentIntent could not be captured because it has a status of {intent['status']}. Only"
                " a PaymentIntent with one of the following statuses may be captured: requires_capture.",
            )  # fmt: skip
        amount = intent["amount_capturable"] if amount is None else amount
        if not 1 <= amount <= intent["amount_capturable"]:
            raise invalid(
                f"The amount to capture ({amount}) is not between 1 and {intent['amount_capturable']}.",
                "amount_to_capture", "amount_too_large" if amount > 0 else "parameter_invalid_integer",
            )  # fmt: skip
        intent["metadata"] = ask.metadata(intent["metadata"])
        self._life.capture(intent, amount, ask)
        return intent

    def cancel(self, ask: Ask) -> Thing:
        ask.only({"cancellation_reason", "expand"})
        intent, reason = self._named(ask), ask.text("cancellation_reason")
        if reason not in REASONS:
            raise invalid("Invalid cancellation_reason", "cancellation_reason")
        if intent["status"] not in CANCELLABLE:
            raise unexpected_state(
                intent, f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}. Only a"
                f" PaymentIntent with one of the following statuses may be canceled: {', '.join(CANCELLABLE)}.",
            )  # fmt: skip
        self._life.cancel(intent, reason, ask)
        return intent

    def read(self, ask: Ask) -> Thing:
        return self._named(ask)

    def list(self, ask: Ask) -> Thing:
        ask.only({"created", "customer", "ending_before", "expand", "limit", "starting_after"})
        customer = ask.text("customer")
        found = [one for one in self._all() if customer in (None, one["customer"])]
        return page(ask, found, "/v1/payment_intents")

    def search(self, ask: Ask) -> Thing:
        """Behind by SEARCH_LAG_MS, on purpose. `field:'value'` with AND between."""
        ask.only({"expand", "limit", "page", "query"})
        clauses = [_CLAUSE.fullmatch(clause) for clause in re.split(r"\bAND\b", ask.needed("query"))]
        found = []
        for intent in self._all():
            if intent["_changed_ms"] + SEARCH_LAG_MS > ask.now_ms:
                continue
            for clause in clauses:
                if clause is None:
                    raise invalid("We were unable to parse your search query.", "query")
                value = intent["metadata"].get(clause[2]) if clause[2] else intent.get(clause[1])
                if value != clause[3]:
                    break
            else:
                found.append(shown(intent))
        found = found[::-1][: ask.number("limit") or 10]
        return {"object": "search_result", "data": found, "has_more": False, "next_page": None,
                "url": "/v1/payment_intents/search"}  # fmt: skip

    def _all(self) -> Iterable[Thing]:
        return self._books.world.all(kind_of("payment_intent"))

    def _named(self, ask: Ask) -> Thing:
        return self._books.find("payment_intent", ask.match["id"], "intent")

    def _customer(self, ask: Ask) -> str | None:
        customer = ask.text("customer")
        if customer is not None:
            self._books.find("customer", customer, "customer")
        return customer

    def _ready(self, intent: Thing, method: Thing | None, ask: Ask) -> None:
        """Raises StripeError for what forbids to confirm; changes nothing."""
        if method is None:
            raise unexpected_state(
                intent, "You cannot confirm this PaymentIntent because it's missing a payment method. You can either"
                " update the PaymentIntent with a payment method and then confirm it again, or confirm it again"
                " directly with a payment method or ConfirmationToken.",
            )  # fmt: skip
        self._books.usable(method, intent["customer"])
        offered = intent["automatic_payment_methods"]
        redirects = offered is not None and offered["allow_redirects"] == "always"
        if redirects and ask.text("return_url") is None and not ask.flag("use_stripe_sdk"):
            raise invalid(
                "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of"
                " these payment methods might redirect your customer off of your page, you must provide a"
                " `return_url`.", "return_url",
            )  # fmt: skip

    def _confirm(self, intent: Thing, method: Thing | None, ask: Ask) -> None:
        assert method is not None, "looked at by _ready"
        intent["_return_url"] = ask.text("return_url")
        self._life.confirm(intent, method, self._books.usable(method, intent["customer"]), ask)


def _capture_method(ask: Ask) -> str | None:
    chosen = ask.text("capture_method")
    if chosen not in (None, *CAPTURE_METHODS):
        raise invalid(f"Invalid capture_method: must be one of {', '.join(CAPTURE_METHODS)}", "capture_method")
    return chosen


def _offered(ask: Ask) -> Thing:
    """Which means of payment: those of the dashboard unless they are listed. Redirects are allowed unless forbidden."""
    if "payment_method_types" in ask.params:
        return {}
    given = ask.table("automatic_payment_methods")
    if given.get("enabled") == "false":
        return {}
    redirects = given.get("allow_redirects", "always")
    if redirects not in ("always", "never"):
        raise invalid("Invalid allow_redirects", "automatic_payment_methods[allow_redirects]")
    return {"automatic_payment_methods": {"allow_redirects": redirects, "enabled": True}}
