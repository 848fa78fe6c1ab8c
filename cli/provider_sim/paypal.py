"""PayPal's HTTP: who may ask, `PayPal-Request-Id`, routes.

Room: cli/provider_sim. Keys as in developer.paypal.com/reference/guidelines/idempotency: a repeat is answered with the
latest state of what the first one made; without a key it is done again; of two at once the second fails. Orders keep
them 6 hours, payments 45 days, the vault 3 hours; void, PATCH and DELETE have none. What was refused keeps nothing.
PayPal does not say what it does with another body under a key of the past: here that is an error, so that nobody's
mistake stays unseen.
"""

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from aiohttp import web

from payment_service.cli.provider_sim.door import Asked, Dialect, Door, Reply
from payment_service.cli.provider_sim.idempotency import fingerprint_of
from payment_service.cli.provider_sim.paypal_ask import (
    Ask,
    NeverAnswers,
    PaypalError,
    impossible,
    malformed,
    parsed,
    trouble,
)
from payment_service.cli.provider_sim.paypal_books import PROVIDER, Books, kind_of
from payment_service.cli.provider_sim.paypal_orders import Orders
from payment_service.cli.provider_sim.paypal_payments import Authorizations, Captures, Disputes
from payment_service.cli.provider_sim.paypal_signing import CERTS_PATH, Signing, canonical
from payment_service.cli.provider_sim.paypal_vault import Vault
from payment_service.cli.provider_sim.world import Thing, World, digest, now_ms

KEY_LENGTH_MAX = 108
HOUR_MS = 3_600_000
ORDER_KEYS_MS = 6 * HOUR_MS
PAYMENT_KEYS_MS = 45 * 24 * HOUR_MS
VAULT_KEYS_MS = 3 * HOUR_MS
MINIMAL = ("id", "status", "links")
"""What an answer shows without `Prefer: return=representation`."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    shows: str
    """What kind of thing it answers with."""
    do: Callable[[Ask], Thing]
    status: int = 200
    keys_ms: int | None = None
    """How long its keys are kept; None: it has none."""


def register(app: web.Application, world: World) -> None:
    books, signing, tokens = Books(world), Signing(world), Tokens(world)
    orders, held, captures, disputes = Orders(books), Authorizations(books), Captures(books), Disputes(books)
    vault, setup, saved = Vault(books), "/v3/vault/setup-tokens", "/v3/vault/payment-tokens"
    door = Door(world, Dialect(PROVIDER, trouble, lambda asked: asked.headers.get("PayPal-Request-Id")))
    order, authorization, capture = "/v2/checkout/orders", "/v2/payments/authorizations", "/v2/payments/captures"
    for route in (
        Route("POST", order, "order", orders.create, 201, ORDER_KEYS_MS),
        Route("GET", order + "/{id}", "order", orders.read),
        Route("PATCH", order + "/{id}", "", orders.patch, 204),
        Route("POST", order + "/{id}/capture", "order", orders.capture, 201, ORDER_KEYS_MS),
        Route("POST", order + "/{id}/authorize", "order", orders.authorize, 201, ORDER_KEYS_MS),
        Route("GET", authorization + "/{id}", "authorization", held.read),
        Route("POST", authorization + "/{id}/capture", "capture", held.capture, 201, PAYMENT_KEYS_MS),
        Route("POST", authorization + "/{id}/void", "authorization", held.void),
        Route("GET", capture + "/{id}", "capture", captures.read),
        Route("POST", capture + "/{id}/refund", "refund", captures.refund, 201, PAYMENT_KEYS_MS),
        Route("GET", "/v2/payments/refunds/{id}", "refund", captures.read_refund),
        Route("GET", "/v1/customer/disputes/{id}", "dispute", disputes.read),
        Route("POST", setup, "setup_token", vault.create_setup, 201, VAULT_KEYS_MS),
        Route("GET", setup + "/{id}", "setup_token", vault.read_setup),
        Route("POST", saved, "payment_token", vault.create_token, 201, VAULT_KEYS_MS),
        Route("GET", saved + "/{id}", "payment_token", vault.read_token),
        Route("DELETE", saved + "/{id}", "", vault.delete_token, 204),
    ):
        app.router.add_route(route.method, route.path, door.to(_Guarded(books, tokens, route)))
    app.router.add_post("/v1/oauth2/token", door.to(tokens.give))
    app.router.add_post(
        "/v1/notifications/verify-webhook-signature", door.to(lambda asked: _verify(tokens, signing, asked))
    )
    app.router.add_get(CERTS_PATH + "{name}", signing.certificate)
    app.router.add_get("/_sim/paypal/root.pem", signing.root)
    app.router.add_post("/_sim/paypal/end_tokens", tokens.end)
    world.webhooks.sign_with(PROVIDER, signing.sign)
    world.on_approved |= {kind_of("order"): orders.approved, kind_of("setup_token"): vault.approved}
    _beside(world, held, captures, disputes)


def _beside(world: World, held: Authorizations, captures: Captures, disputes: Disputes) -> None:
    """What happens without a request to the API."""
    order, authorization, capture, refund, dispute = (
        kind_of(name) for name in ("order", "authorization", "capture", "refund", "dispute")
    )
    world.on_due |= {authorization: held.settled, capture: captures.settled, refund: captures.refund_settled}
    world.dashboard |= {
        (order, "refund"): captures.made_in_dashboard,
        (capture, "refund"): captures.made_in_dashboard,
        (refund, "fail"): captures.refund_failed,
        (order, "deny"): captures.denied,
        (capture, "deny"): captures.denied,
        (order, "expire"): held.expire,
        (authorization, "expire"): held.expire,
        (order, "dispute"): disputes.asked_for,
        (capture, "dispute"): disputes.asked_for,
        (dispute, "won"): disputes.won,
        (dispute, "lost"): disputes.lost,
    }


class Tokens:
    """`/v1/oauth2/token`. A token says by itself until when it is good, so that a restart ends none."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._not_before_ms = 0

    def give(self, asked: Asked) -> Reply:
        """Any client id and secret, but a secret that begins with `wrong`."""
        scheme, _, given = asked.headers.get("Authorization", "").partition(" ")
        try:
            client, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            client = secret = ""
        if scheme.lower() != "basic" or not client or not secret or secret.startswith("wrong"):
            return Reply(401, {"error": "invalid_client", "error_description": "Client Authentication failed"})
        if asked.body != b"grant_type=client_credentials":
            return Reply(400, {"error": "unsupported_grant_type", "error_description": "unsupported grant_type"})
        now, lasts_s = now_ms(), self._world.settings.paypal_token_s
        body = {
            "scope": "https://uri.paypal.com/services/payments/payment", "access_token": self._made(now, lasts_s),
            "token_type": "Bearer", "app_id": "APP-SIMULATED", "expires_in": lasts_s, "nonce": str(now),
        }  # fmt: skip
        return Reply(200, body)

    def check(self, asked: Asked) -> None:
        """Raises PaypalError 401."""
        scheme, _, token = asked.headers.get("Authorization", "").partition(" ")
        made, _, rest = token.removeprefix("A21AA").partition("-")
        lasts, _, _ = rest.partition("-")
        good = scheme == "Bearer" and made.isdigit() and lasts.isdigit()
        if good:
            now, made_ms, lasts_s = now_ms(), int(made), int(lasts)
            good = token == self._made(made_ms, lasts_s) and self._not_before_ms < made_ms + 1 <= now + 1
            good = good and now < made_ms + lasts_s * 1000
        if not good:
            raise PaypalError(401, "", "Authentication failed due to invalid authentication credentials.")

    async def end(self, _: web.Request) -> web.Response:
        """Every token given so far is good for nothing any more."""
        self._not_before_ms = now_ms() + 1
        return web.json_response({"ended_before_ms": self._not_before_ms})

    def _made(self, at_ms: int, lasts_s: int) -> str:
        secret = self._world.settings.webhook_secret.encode()
        return f"A21AA{at_ms}-{lasts_s}-{hmac.new(secret, f'{at_ms}-{lasts_s}'.encode(), sha256).hexdigest()}"


class _Guarded:
    """A route behind its token and its key: an Operation."""

    def __init__(self, books: Books, tokens: Tokens, route: Route) -> None:
        self._books = books
        self._tokens = tokens
        self._route = route
        self._answers = books.world.answers

    def __call__(self, asked: Asked) -> Reply:
        route = self._route
        try:
            self._tokens.check(asked)
            body = parsed(asked.body)
            content_type = asked.headers.get("Content-Type", "").split(";")[0]
            if route.method not in ("GET", "DELETE") and content_type != "application/json":
                raise PaypalError(415, "", "The content type is application/json.")
            key = asked.headers.get("PayPal-Request-Id") if route.keys_ms is not None else None
            if key is not None and not 1 <= len(key) <= KEY_LENGTH_MAX:
                raise malformed("INVALID_STRING_LENGTH", "PayPal-Request-Id")
            return self._run(asked, body, None) if key is None else self._once(asked, body, key)
        except PaypalError as error:
            return Reply(error.status, error.body, {"Paypal-Debug-Id": error.body["debug_id"]})

    def _once(self, asked: Asked, body: Any, key: str) -> Reply:
        route, scope = self._route, f"{PROVIDER} {self._route.path}"
        assert route.keys_ms is not None
        if (scope, key) in self._answers.in_flight:
            raise PaypalError(
                409, "PREVIOUS_REQUEST_IN_PROGRESS", "A previous request on this resource is in progress."
            )
        fingerprint = fingerprint_of(asked.path, canonical(body))
        kept = self._answers.get(scope, key)
        if kept is not None and now_ms() - kept.at_ms < route.keys_ms:
            if kept.fingerprint != fingerprint:
                raise impossible("PAYPAL_REQUEST_ID_PREVIOUSLY_USED", "It was used for another request.")
            reply = Reply(200, self._shown(asked, self._books.get(route.shows, kept.body["id"])), moves_money=True)
        else:
            reply = self._run(asked, body, key)
            if reply.status < 300 and not reply.silent:
                self._answers.keep(scope, key, fingerprint, reply.status, {"id": reply.body["id"]})
        self._answers.in_flight.add((scope, key))
        reply.sent = lambda: self._answers.in_flight.discard((scope, key))
        return reply

    def _run(self, asked: Asked, body: Any, key: str | None) -> Reply:
        if isinstance(body, list) and self._route.method == "PATCH":
            body = {"patches": body}
        if not isinstance(body, dict):
            raise malformed("MALFORMED_REQUEST_JSON")
        ask = Ask(body, asked.match, key, now_ms())
        try:
            thing = self._route.do(ask)
        except NeverAnswers:
            return Reply(200, None, silent=True)
        except PaypalError as error:
            return Reply(error.status, error.body, moves_money=ask.moves_money)
        status = self._route.status
        if status == 200 and self._route.path.endswith("/void") and not _whole(asked):
            status = 204
        shown = None if status == 204 else self._shown(asked, thing)
        return Reply(status, shown, moves_money=ask.moves_money)

    def _shown(self, asked: Asked, thing: Thing) -> Thing:
        body = self._books.show(self._route.shows, thing)
        return body if asked.method == "GET" or _whole(asked) else {name: body[name] for name in MINIMAL}


def _whole(asked: Asked) -> bool:
    """The vault knows no other answer."""
    return asked.path.startswith("/v3/") or "return=representation" in asked.headers.get("Prefer", "")


def _verify(tokens: Tokens, signing: Signing, asked: Asked) -> Reply:
    try:
        tokens.check(asked)
        body = parsed(asked.body)
        if not isinstance(body, dict) or "webhook_event" not in body:
            raise malformed("MISSING_REQUIRED_PARAMETER", "webhook_event")
        ask = Ask(body, asked.match, None, now_ms())
        return Reply(200, signing.verify(ask, asked.body))
    except PaypalError as error:
        return Reply(error.status, error.body, {"Paypal-Debug-Id": digest(asked.path)[:13]})
