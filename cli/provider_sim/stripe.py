"""Stripe's HTTP under `/v1`: who may ask, idempotency keys, routes.

Room: cli/provider_sim. Version 2026-10-28.endive, as the service's SDK asks for it. Keys as in
docs.stripe.com/api/idempotent_requests: status and body of the first request are kept once its work began, a 500
included, and given again with `Idempotent-Replayed`; other parameters under the same key are an error; a key whose
first request is still being answered is a 409; wrong parameters keep nothing.
"""

import base64
import binascii
from collections.abc import Callable
from hashlib import blake2b

from aiohttp import web

from payment_service.cli.provider_sim.door import Asked, Dialect, Door, Reply
from payment_service.cli.provider_sim.idempotency import fingerprint_of
from payment_service.cli.provider_sim.stripe_ask import Ask, NeverAnswers, StripeError, invalid, listed, parsed, trouble
from payment_service.cli.provider_sim.stripe_books import PROVIDER, Books, kind_of
from payment_service.cli.provider_sim.stripe_customers import Customers
from payment_service.cli.provider_sim.stripe_intents import Intents
from payment_service.cli.provider_sim.stripe_life import Life
from payment_service.cli.provider_sim.stripe_lists import expanded
from payment_service.cli.provider_sim.stripe_refunds import Disputes, Refunds
from payment_service.cli.provider_sim.stripe_shapes import API_VERSION
from payment_service.cli.provider_sim.world import Thing, World, now_ms, shown

KEY_LENGTH_MAX = 255
Endpoint = Callable[[Ask], Thing]


def register(app: web.Application, world: World) -> None:
    books = Books(world)
    refunds, disputes, customers = Refunds(books), Disputes(books), Customers(books)
    life = Life(books, disputes.open)
    intents = Intents(books, life)
    _routes(app, books, intents, refunds, disputes, customers)
    world.webhooks.sign_with(PROVIDER, books.sign)
    intent, refund, charge, dispute = (kind_of(name) for name in ("payment_intent", "refund", "charge", "dispute"))
    world.on_due |= {intent: life.settled, refund: refunds.settled}
    world.on_approved |= {intent: life.approved, kind_of("setup_intent"): customers.approved}
    world.dashboard |= {
        (intent, "deny"): life.denied,
        (intent, "expire"): life.expire,
        (intent, "refund"): refunds.made_in_dashboard,
        (charge, "refund"): refunds.made_in_dashboard,
        (refund, "fail"): refunds.failed,
        (intent, "dispute"): disputes.asked_for,
        (charge, "dispute"): disputes.asked_for,
        (dispute, "won"): disputes.won,
        (dispute, "lost"): disputes.lost,
    }


def _routes(
    app: web.Application, books: Books, intents: Intents, refunds: Refunds, disputes: Disputes, customers: Customers
) -> None:
    door = Door(books.world, Dialect(PROVIDER, trouble, lambda asked: asked.headers.get("Idempotency-Key")))
    routes: tuple[tuple[str, str, Endpoint], ...] = (
        ("POST", "/payment_intents", intents.create),
        ("GET", "/payment_intents", intents.list),
        ("GET", "/payment_intents/search", intents.search),
        ("GET", "/payment_intents/{id}", intents.read),
        ("POST", "/payment_intents/{id}", intents.update),
        ("POST", "/payment_intents/{id}/confirm", intents.confirm),
        ("POST", "/payment_intents/{id}/capture", intents.capture),
        ("POST", "/payment_intents/{id}/cancel", intents.cancel),
        ("POST", "/refunds", refunds.create),
        ("GET", "/refunds", refunds.list),
        ("GET", "/refunds/{id}", refunds.read),
        ("POST", "/refunds/{id}", refunds.update),
        ("POST", "/refunds/{id}/cancel", refunds.cancel),
        ("GET", "/charges", refunds.list_charges),
        ("GET", "/charges/{id}", refunds.read_charge),
        ("GET", "/disputes", disputes.list),
        ("GET", "/disputes/{id}", disputes.read),
        ("GET", "/account", customers.account),
        ("POST", "/customers", customers.create),
        ("GET", "/customers/{id}", customers.read),
        ("POST", "/customers/{id}", customers.update),
        ("GET", "/customers/{id}/payment_methods", customers.list_methods),
        ("POST", "/payment_methods", customers.create_method),
        ("GET", "/payment_methods", customers.list_methods),
        ("GET", "/payment_methods/{id}", customers.read_method),
        ("POST", "/payment_methods/{id}/attach", customers.attach),
        ("POST", "/payment_methods/{id}/detach", customers.detach),
        ("POST", "/setup_intents", customers.create_setup),
        ("GET", "/setup_intents/{id}", customers.read_setup),
        ("POST", "/setup_intents/{id}/confirm", customers.confirm_setup),
        ("POST", "/setup_intents/{id}/cancel", customers.cancel_setup),
    )
    for method, path, endpoint in routes:
        app.router.add_route(method, f"/v1{path}", door.to(_Guarded(books, endpoint)))


class _Guarded:
    """An endpoint behind the API key and the idempotency key: an Operation."""

    def __init__(self, books: Books, endpoint: Endpoint) -> None:
        self._books = books
        self._endpoint = endpoint
        self._answers = books.world.answers

    def __call__(self, asked: Asked) -> Reply:
        key = asked.headers.get("Idempotency-Key") if asked.method == "POST" else None
        try:
            _authenticate(asked)
            reply = self._once(asked, key) if key is not None else self._run(asked, None)[0]
        except StripeError as error:
            reply = Reply(error.status, error.body)
        version = asked.headers.get("Stripe-Version", API_VERSION)
        reply.headers |= {"Request-Id": "req_" + _digest(asked, now_ms()), "Stripe-Version": version}
        if key is not None:
            reply.headers["Idempotency-Key"] = key
        return reply

    def _once(self, asked: Asked, key: str) -> Reply:
        """Raises StripeError for a key that cannot be used."""
        if not 1 <= len(key) <= KEY_LENGTH_MAX:
            raise invalid(f"The idempotency key must be 1 to {KEY_LENGTH_MAX} characters long.")
        if (PROVIDER, key) in self._answers.in_flight:
            raise StripeError(
                409, "invalid_request_error", "There is currently another in-progress request using this Idempotent"
                " Key (that probably means you submitted twice, and the other request is still going through).",
                code="idempotency_key_in_use",
            )  # fmt: skip
        fingerprint = fingerprint_of(asked.path, _digest(asked))
        kept = self._answers.get(PROVIDER, key)
        if kept is None:
            reply, keeps = self._run(asked, key)
            if keeps:
                self._answers.keep(PROVIDER, key, fingerprint, reply.status, reply.body)
        elif kept.fingerprint != fingerprint:
            raise StripeError(
                400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters they"
                f" were first used with. Try using a key other than '{key}' if you meant to execute a different"
                " request.",
            )  # fmt: skip
        else:
            reply = Reply(kept.status, kept.body, {"Idempotent-Replayed": "true"}, moves_money=True)
        if reply.status >= 500:
            # A retry would be given the same again, and the SDK heeds this (stripe-python, _http_client.py).
            reply.headers["Stripe-Should-Retry"] = "false"
        self._answers.in_flight.add((PROVIDER, key))
        reply.sent = lambda: self._answers.in_flight.discard((PROVIDER, key))
        return reply

    def _run(self, asked: Asked, key: str | None) -> tuple[Reply, bool]:
        """The answer, and whether it is kept."""
        ask: Ask | None = None
        done = False
        try:
            params = parsed(asked.body.decode() if asked.method == "POST" else asked.query_string)
            expand = listed(params.get("expand"))
            ask = Ask(params, asked.match, key, asked.headers.get("Stripe-Version", API_VERSION), now_ms())
            body = shown(self._endpoint(ask))
            done = True
            body, status, keeps = expanded(self._books, body, expand), 200, True
        except StripeError as error:
            body, status, keeps = error.body, error.status, error.began or done
        except NeverAnswers:
            return Reply(200, None, silent=True), False
        except UnicodeDecodeError:
            body, status, keeps = invalid("Invalid request body: it is not UTF-8").body, 400, False
        if asked.fails_after and keeps:
            body, status = trouble(500, "An unknown error occurred").body, 500
        return Reply(status, body, moves_money=ask is not None and ask.moves_money), keeps


def _authenticate(asked: Asked) -> None:
    """`Authorization: Bearer sk_test_…`, or the same as the user of basic authentication. Raises StripeError."""
    scheme, _, given = asked.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    if not given:
        raise StripeError(401, "invalid_request_error", "You did not provide an API key.")
    if not given.startswith(("sk_test_", "rk_test_")):
        raise StripeError(401, "invalid_request_error", f"Invalid API Key provided: {given[:7]}****")


def _digest(asked: Asked, *more: object) -> str:
    return blake2b(asked.body + "\0".join(map(str, (asked.path, *more))).encode(), digest_size=12).hexdigest()
