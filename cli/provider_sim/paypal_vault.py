"""`/v3/vault`: setup tokens, their approval by the shopper, and the payment tokens they become: PayPal's saved wallets.

Room: cli/provider_sim. developer.paypal.com/docs/api/payment-tokens/v3. Cards are not simulated. What is charged with a
payment token is the test token of the approval (`/_sim/approve/{id}?with=tok_…`), tok_visa unless it is named.
"""

from urllib.parse import urlencode

from payment_service.cli.provider_sim.paypal_ask import Ask, impossible, malformed, missing, text_of
from payment_service.cli.provider_sim.paypal_books import Books, kind_of
from payment_service.cli.provider_sim.stripe_cards import card_of
from payment_service.cli.provider_sim.world import Thing, digest

ANYBODY = "tok_visa"
SAID_OF_WALLET = ("description", "permit_multiple_payment_tokens", "usage_type", "usage_pattern", "customer_type")


class Vault:
    def __init__(self, books: Books) -> None:
        self._books = books

    def create_setup(self, ask: Ask) -> Thing:
        source, customer = ask.table("payment_source"), ask.table("customer")
        wallet = source.get("paypal")
        if set(source) != {"paypal"} or not isinstance(wallet, dict):
            raise malformed("INVALID_PARAMETER_VALUE", "payment_source: wallets alone are simulated")
        if wallet.get("usage_type") not in ("MERCHANT", "PLATFORM"):
            raise malformed("MISSING_REQUIRED_PARAMETER", "usage_type")
        context = wallet.get("experience_context") or {}
        ours = text_of(customer, "merchant_customer_id", 64)
        known = text_of(customer, "id", 22) or digest(ours or ask.key or "", "customer")[:16]
        setup = {
            "id": self._books.new_id("setup_token", ask.key), "status": "PAYER_ACTION_REQUIRED",
            "customer": {"id": known, **({"merchant_customer_id": ours} if ours else {})},
            "payment_source": {"paypal": {name: wallet[name] for name in SAID_OF_WALLET if name in wallet}},
            "_return_url": text_of(context, "return_url", 4000), "_approved_with": None, "_due_ms": None,
        }  # fmt: skip
        return self._books.put("setup_token", setup)

    def read_setup(self, ask: Ask) -> Thing:
        return self._books.find("setup_token", ask.match["id"])

    def approved(self, setup: Thing) -> None:
        """Twice is once. Where the page leads back to tells the token, as PayPal's does."""
        if setup["status"] != "PAYER_ACTION_REQUIRED":
            return
        if setup["_return_url"]:
            told = urlencode({"approval_token_id": setup["id"], "approval_session_id": setup["id"]})
            setup["_return_url"] += ("&" if "?" in setup["_return_url"] else "?") + told
        setup["status"] = "APPROVED"
        self._books.put("setup_token", setup)

    def create_token(self, ask: Ask) -> Thing:
        """Once for a setup token."""
        given = ask.table("payment_source").get("token")
        if not isinstance(given, dict) or given.get("type") != "SETUP_TOKEN":
            raise malformed("INVALID_PARAMETER_VALUE", "payment_source.token.type: setup tokens alone are simulated")
        setup = self._books.find("setup_token", text_of(given, "id", 36) or "")
        if setup["status"] == "PAYER_ACTION_REQUIRED":
            raise impossible("PAYER_ACTION_REQUIRED", "The payer has not approved the setup token.")
        if setup["status"] != "APPROVED":
            raise impossible("SETUP_TOKEN_ALREADY_USED", "The setup token was exchanged before.")
        wallet = {
            **setup["payment_source"]["paypal"], "email_address": "payer@example.com", "account_id": "VYYFH3WJ4JPJQ",
        }  # fmt: skip
        token = {
            "id": self._books.new_id("payment_token", ask.key).lower(), "customer": setup["customer"],
            "payment_source": {"paypal": wallet}, "_card": card_of(setup["_approved_with"] or ANYBODY),
            "_gone": False, "_due_ms": None,
        }  # fmt: skip
        setup["status"] = "TOKENIZED"
        self._books.put("setup_token", setup)
        self._books.put("payment_token", token)
        self._books.emit("VAULT.PAYMENT-TOKEN.CREATED", "payment_token", token)
        return token

    def read_token(self, ask: Ask) -> Thing:
        token = self._books.find("payment_token", ask.match["id"])
        if token["_gone"]:
            raise missing()
        return token

    def delete_token(self, ask: Ask) -> Thing:
        """By us, or by its owner in their PayPal account: whoever sends it. One that is not there is no error."""
        token = self._books.world.get(kind_of("payment_token"), ask.match["id"])
        if token is None or token["_gone"]:
            return {}
        token["_gone"] = True
        self._books.put("payment_token", token)
        self._books.emit("VAULT.PAYMENT-TOKEN.DELETED", "payment_token", token)
        return token
