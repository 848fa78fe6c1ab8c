"""`/v1/customers`, `/v1/payment_methods`, `/v1/setup_intents`, `/v1/account`: saved means of payment.

Room: cli/provider_sim. docs.stripe.com/api/payment_methods, docs.stripe.com/api/setup_intents
"""

from payment_service.cli.provider_sim import stripe_shapes as shapes
from payment_service.cli.provider_sim.stripe_ask import Ask, NeverAnswers, StripeError, invalid
from payment_service.cli.provider_sim.stripe_books import Books, kind_of
from payment_service.cli.provider_sim.stripe_cards import CARDS
from payment_service.cli.provider_sim.stripe_lists import page
from payment_service.cli.provider_sim.world import Thing, now_ms, shown

OF_CUSTOMER = frozenset(
    ("address", "description", "email", "expand", "invoice_settings", "metadata", "name", "payment_method", "phone",
     "preferred_locales", "shipping", "tax_exempt")
)  # fmt: skip
PLAIN = ("description", "email", "name", "phone")
OF_METHOD = frozenset(("allow_redisplay", "billing_details", "card", "expand", "metadata", "type"))
OF_SETUP = frozenset(
    ("automatic_payment_methods", "confirm", "customer", "description", "expand", "mandate_data", "metadata",
     "payment_method", "payment_method_data", "payment_method_options", "payment_method_types", "return_url", "usage",
     "use_stripe_sdk")
)  # fmt: skip


class Customers:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._began_ms = now_ms()

    def account(self, ask: Ask) -> Thing:
        return shapes.account(self._began_ms)

    def create(self, ask: Ask) -> Thing:
        ask.only(OF_CUSTOMER)
        made = shapes.customer(
            self._books.new_id("customer", ask), ask.now_ms, metadata=ask.metadata(),
            **{name: ask.text(name) for name in PLAIN},
        )  # fmt: skip
        named = ask.text("payment_method")
        method = self._books.named_method(named, ask, "payment_method") if named is not None else None
        self._books.put(made)
        if method is not None:
            self._attach(method, made["id"])
        self._books.emit("customer.created", made, ask)
        return made

    def update(self, ask: Ask) -> Thing:
        ask.only(OF_CUSTOMER)
        customer = self.read(ask)
        customer.update({name: ask.text(name) for name in PLAIN if name in ask.params})
        customer["metadata"] = ask.metadata(customer["metadata"])
        self._books.put(customer)
        self._books.emit("customer.updated", customer, ask)
        return customer

    def read(self, ask: Ask) -> Thing:
        return self._books.find("customer", ask.match["id"], "id")

    # --- payment methods -----------------------------------------------------------------------------------------

    def create_method(self, ask: Ask) -> Thing:
        ask.only(OF_METHOD)
        made = self._books.new_method(ask.params, ask)
        return self._books.put(made)

    def read_method(self, ask: Ask) -> Thing:
        return self._books.find("payment_method", ask.match["id"], "payment_method")

    def list_methods(self, ask: Ask) -> Thing:
        ask.only({"allow_redisplay", "customer", "ending_before", "expand", "limit", "starting_after", "type"})
        customer = ask.match.get("id") or ask.text("customer")
        found = [
            one
            for one in self._books.world.all(kind_of("payment_method"))
            if customer is not None and one["customer"] == customer
        ]
        return page(ask, found, f"/v1/customers/{customer}/payment_methods" if customer else "/v1/payment_methods")

    def attach(self, ask: Ask) -> Thing:
        ask.only({"customer", "expand"})
        customer = self._books.find("customer", ask.needed("customer"), "customer")["id"]
        method = self._books.named_method(ask.match["id"], ask, "payment_method")
        if method["customer"] not in (None, customer):
            raise invalid("The payment method you provided has already been attached to a customer.")
        if method["customer"] is None:
            self._books.usable(method, customer)
        self._attach(method, customer)
        self._books.emit("payment_method.attached", method, ask)
        return method

    def detach(self, ask: Ask) -> Thing:
        ask.only({"expand"})
        method = self.read_method(ask)
        if method["customer"] is None:
            raise invalid("The payment method you provided is not attached to a customer so detachment is impossible.")
        method.update(customer=None, _used=True)
        self._books.put(method)
        self._books.emit("payment_method.detached", method, ask)
        return method

    def _attach(self, method: Thing, customer: str) -> None:
        """Raises StripeError when the bank does not like the card."""
        card = CARDS[method["_card"]]
        if card.does == "decline" and not card.attaches:
            raise self._books.decline_of(card)
        method["customer"] = customer
        self._books.put(method)

    # --- setup intents -------------------------------------------------------------------------------------------

    def create_setup(self, ask: Ask) -> Thing:
        ask.only(OF_SETUP)
        customer = ask.text("customer")
        if customer is not None:
            self._books.find("customer", customer, "customer")
        made = shapes.setup_intent(
            self._books.new_id("setup_intent", ask), ask.now_ms, customer=customer, metadata=ask.metadata(),
            description=ask.text("description"), usage=ask.text("usage") or "off_session",
        )  # fmt: skip
        method = self._books.method_of(ask)
        if method is not None:
            self._books.put(method)
            made.update(payment_method=method["id"], status="requires_confirmation")
        self._books.put(made)
        self._books.emit("setup_intent.created", made, ask)
        if ask.flag("confirm"):
            self._confirm(made, ask)
        return made

    def confirm_setup(self, ask: Ask) -> Thing:
        ask.only(OF_SETUP - {"confirm", "customer", "description", "usage"})
        setup = self.read_setup(ask)
        method = self._books.method_of(ask)
        if setup["status"] in ("succeeded", "canceled"):
            raise _setup_state(setup)
        if method is not None:
            self._books.put(method)
            setup["payment_method"] = method["id"]
        self._confirm(setup, ask)
        return setup

    def cancel_setup(self, ask: Ask) -> Thing:
        ask.only({"cancellation_reason", "expand"})
        setup = self.read_setup(ask)
        if setup["status"] in ("succeeded", "canceled"):
            raise _setup_state(setup)
        setup.update(status="canceled", cancellation_reason=ask.text("cancellation_reason"), next_action=None)
        self._books.put(setup)
        self._books.emit("setup_intent.canceled", setup, ask)
        return setup

    def read_setup(self, ask: Ask) -> Thing:
        return self._books.find("setup_intent", ask.match["id"], "intent")

    def approved(self, setup: Thing) -> None:
        if setup["status"] == "requires_action":
            self._saved(setup, None)

    def _confirm(self, setup: Thing, ask: Ask) -> None:
        if setup["payment_method"] is None:
            raise invalid(
                "You cannot confirm this SetupIntent because it's missing a payment method.",
                code="setup_intent_unexpected_state",
            )
        method = self._books.get("payment_method", setup["payment_method"])
        card = self._books.usable(method, setup["customer"])
        setup["_return_url"] = ask.text("return_url")
        if card.does == "never":
            raise NeverAnswers
        if card.does == "fail":
            raise StripeError(500, "api_error", "An unknown error occurred", began=True)
        if card.does == "decline" and not card.attaches:
            error = self._books.decline_of(card, payment_method=shown(method))
            setup.update(
                status="requires_payment_method", payment_method=None, last_setup_error={**error.body["error"]}
            )
            self._books.put(setup)
            self._books.emit("setup_intent.setup_failed", setup, ask)
            error.body["error"]["setup_intent"] = shown(setup)
            raise error
        if card.does == "authenticate":
            url = f"{self._books.world.settings.public_url}/_sim/approve/{setup['id']}"
            redirect = {"type": "redirect_to_url", "redirect_to_url": {"return_url": setup["_return_url"], "url": url}}
            sdk = {"type": "use_stripe_sdk", "use_stripe_sdk": {"stripe_js": url}}
            setup.update(status="requires_action", next_action=redirect if setup["_return_url"] else sdk)
            self._books.put(setup)
            self._books.emit("setup_intent.requires_action", setup, ask)
            return
        self._saved(setup, ask)

    def _saved(self, setup: Thing, ask: Ask | None) -> None:
        method = self._books.get("payment_method", setup["payment_method"])
        if setup["customer"] is not None:
            method["customer"] = setup["customer"]
            self._books.put(method)
        setup.update(status="succeeded", next_action=None, last_setup_error=None)
        self._books.put(setup)
        self._books.emit("setup_intent.succeeded", setup, ask)


def _setup_state(setup: Thing) -> StripeError:
    return StripeError(
        400, "invalid_request_error", f"This SetupIntent's status is {setup['status']}.", began=True,
        code="setup_intent_unexpected_state", setup_intent=shown(setup),
    )  # fmt: skip
