"""Points 6-9 of the security check-list: who may call what, what a body may set, what an answer tells, which tokens
are believed. OWASP API Security 2023 (A), ASVS 5.0 (V)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jsonschema import Draft202012Validator
from rigs.desk_rig import desk_over
from rigs.web_site import ADMIN, ANN, BOB, NOW_S, SECRET, SERVICE, RecordedRequests, ask, bearer, opened, services_with
from rigs.whole_site import VISA, WholeSite, whole_site

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.core.errors import Refused
from payment_service.core.ids import payment_id_of
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.api_calls import CALLS
from payment_service.web.api_document import document
from payment_service.web.site import BLUEPRINTS
from payment_service.web.tokens import TokenRules

ANN_CALLER, ADMIN_CALLER = Caller("ann"), Caller("root", frozenset({"admin"}))
SERVICE_CALLER, SUPPORT = Caller(None, frozenset({"service"})), Caller("eve", frozenset({"support"}))
NOBODY: dict[str, str] = {}
OTHER_ROLE = dict(bearer("user-2", "support", "Admin", "administrator"))
CALLERS = {"nobody": NOBODY, "owner": ANN, "other": BOB, "odd roles": OTHER_ROLE, "admin": ADMIN, "service": SERVICE}
OWN = ("owner",)
READERS = ("owner", "admin")
REFUNDERS = ("owner", "service")
PRIVILEGED = ("owner", "admin", "service")
MISSING, FORBIDDEN = "PAYMENT_NOT_FOUND", "FORBIDDEN"
# Each row: route, body, who is let in; then what those who are not are told, beside nobody (401) and not found (404).
# REFUND_ROLES is "owner" here; another service may always refund, has no methods and no payments, and reads none.
CREATE = {"orderId": "order-1", "amount": 99.99}
PAYMENT = payment_id_of("order-1")
MATRIX: dict[tuple[str, str], tuple[Any, tuple[str, ...], dict[str, str]]] = {
    ("post", "/api/v1/payments"): (CREATE, OWN, {
        "other": "PAYMENT_EXISTS", "odd roles": "PAYMENT_EXISTS", "admin": "PAYMENT_EXISTS", "service": FORBIDDEN}),
    ("get", "/api/v1/payments"): (None, ("owner", "other", "odd roles", "admin"), {"service": FORBIDDEN}),
    ("get", "/api/v1/payments/{payment_id}"): (None, READERS, {}),
    ("get", "/api/v1/payments/{payment_id}/timeline"): (None, READERS, {}),
    ("get", "/api/v1/orders/{order_id}/payment"): (None, READERS, {}),
    ("post", "/api/v1/payments/{payment_id}/process"): ({}, OWN, {}),
    ("post", "/api/v1/payments/{payment_id}/capture"): ({}, PRIVILEGED, {}),
    ("post", "/api/v1/payments/{payment_id}/cancel"): ({}, PRIVILEGED, {}),
    ("post", "/api/v1/payments/{payment_id}/refund"): ({}, REFUNDERS, {}),
    ("post", "/api/v1/refunds"): ({"paymentId": PAYMENT}, REFUNDERS, {}),
    ("post", "/api/v1/payment-methods"): (VISA, ("owner", "other", "odd roles", "admin"), {"service": FORBIDDEN}),
    ("get", "/api/v1/payment-methods"): (None, ("owner", "other", "odd roles", "admin"), {"service": FORBIDDEN}),
    ("delete", "/api/v1/payment-methods/{method_id}"): (None, OWN, {
        "other": "NOT_FOUND", "odd roles": "NOT_FOUND", "admin": "NOT_FOUND", "service": FORBIDDEN}),
    ("put", "/api/v1/payment-methods/{method_id}/default"): (None, OWN, {
        "other": "NOT_FOUND", "odd roles": "NOT_FOUND", "admin": "NOT_FOUND", "service": FORBIDDEN}),
    ("get", "/tables/payments/{payment_id}"): (None, ("admin",), {
        "owner": FORBIDDEN, "other": FORBIDDEN, "odd roles": FORBIDDEN, "service": FORBIDDEN}),
}  # fmt: skip
OPEN = {
    ("get", "/health"), ("get", "/ready"), ("get", "/metrics"), ("get", "/api-docs"), ("get", "/api-docs/"),
    ("get", "/api-docs/{name}"), ("get", "/api-docs/openapi.yaml"), ("get", "/mock/approve/{object_id}"),
    ("post", "/api/v1/webhooks"), ("post", "/api/v1/webhooks/{provider}"),
}  # fmt: skip
"""No token: probes, the documentation, the mock's page in development; a provider proves itself by its signature."""


def routes() -> Iterator[tuple[str, str]]:
    for blueprint in BLUEPRINTS:
        for route in blueprint.routes:
            for name in route.handler._implemented() - {"head"}:
                yield name, (blueprint.url_prefix or "") + route.uri


def test_06_no_route_is_missing_in_the_matrix() -> None:
    assert sorted([*MATRIX, *OPEN]) == sorted(routes())


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", MATRIX, ids=lambda route: " ".join(route))
async def test_06_every_route_for_every_role(route: tuple[str, str], caller: str) -> None:
    """A 5. Who is let in meets the payment's state at most (409), never 401, 403 or 404."""
    method, path = route
    body, let_in, told = MATRIX[route]
    async with whole_site() as site:
        await site.charged("order-1")
        name = (await site.saved()).rpartition("/")[2]
        url = path.format(payment_id=PAYMENT, order_id="order-1", method_id=name)
        status, envelope = await site.ask(method.upper(), url, body, CALLERS[caller])
    if caller in let_in:
        assert status in (200, 201) or envelope["code"] == "INVALID_STATE", envelope
    else:
        assert envelope["code"] == ("UNAUTHORIZED" if caller == "nobody" else told.get(caller, MISSING)), envelope


@pytest.mark.parametrize(
    ("roles", "may"),
    [({"owner"}, {ANN_CALLER, SERVICE_CALLER}), ({"admin"}, {ADMIN_CALLER, SERVICE_CALLER}),
     ({"service"}, {SERVICE_CALLER}), ({"owner", "support"}, {ANN_CALLER, SERVICE_CALLER, SUPPORT})],
)  # fmt: skip
async def test_06_who_may_refund_is_a_setting(roles: set[str], may: set[Caller]) -> None:
    async with desk_over(MemoryPaymentStore(), refund_roles=frozenset(roles)) as rig:
        await rig.create()
        await rig.process()
        for caller in (ANN_CALLER, ADMIN_CALLER, SERVICE_CALLER, SUPPORT, Caller("bob")):
            if caller in may:
                assert (await rig.refund(1, caller)).refund is not None
            else:
                with pytest.raises(Refused) as refused:
                    await rig.refund(1, caller)
                assert refused.value.code in (FORBIDDEN, MISSING)


SET_BY_US = {"status": "SUCCEEDED", "amounts": {"captured": 1}, "amountMinor": 1, "userId": "user-2", "version": 9}


@pytest.mark.parametrize("call", [call for call in CALLS if call.body and "/webhooks" not in call.path],
                         ids=lambda call: call.path)  # fmt: skip
async def test_07_what_is_ours_cannot_be_set_by_a_caller(call: Any) -> None:
    """A 3, V 15.3.3. /process ignores what the old service's callers send; everywhere else it is refused by name."""
    async with whole_site() as site:
        path = await site.created("order-1")
        before = await site.now(path)
        body = {**(MATRIX[call.method, call.path][0]), **SET_BY_US}
        url = call.path.format(payment_id=PAYMENT)
        if url.endswith("/process"):
            status, envelope = await site.ask("POST", url, {**body, "paymentMethodId": "tok_chargeDeclined"})
            assert (status, envelope["code"]) == (402, "CARD_DECLINED")
            after = await site.now(path)
            assert (after["status"], after["amounts"], after["userId"]) == ("FAILED", before["amounts"], "user-1")
        else:
            status, envelope = await site.ask("POST", url, body)
            assert (status, envelope["code"]) == (422, "VALIDATION_ERROR")
            assert set(SET_BY_US) <= set(envelope["errors"])
            assert await site.now(path) == before


def test_08_every_described_object_says_that_there_is_no_more() -> None:
    """A 3, V 15.3.1. Free are only what callers give themselves and what operators read."""
    schemas = document()["components"]["schemas"]
    free = {name for name, schema in schemas.items()
            if schema["type"] == "object" and schema.get("additionalProperties") is not False}  # fmt: skip
    assert free == {"ProviderEvent", "ProcessBody", "Readiness"}


async def test_08_answers_hold_the_documented_fields_alone() -> None:
    described = document()

    async def check(site: WholeSite, method: str, route: str, path: str, body: Any = None, who: Any = ANN) -> Any:
        status, envelope = await site.ask(method, path, body, who)
        answer = described["paths"][route][method.lower()]["responses"][str(status)]
        schema = answer["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": described["components"]}).validate(envelope)
        assert "tok_visa" not in json.dumps(envelope), "what was sent to pay with is not told"
        return envelope.get("data")

    base = "/api/v1/payments/{payment_id}"
    async with whole_site() as site:
        path = await site.created("order-1", metadata={"a": 1})
        await check(site, "POST", f"{base}/process", f"{path}/process", {"paymentMethodId": "tok_chargeDeclined"})
        await check(site, "POST", f"{base}/process", f"{path}/process", {"paymentMethodId": "tok_visa"})
        await check(site, "POST", f"{base}/refund", f"{path}/refund", {"amount": 1, "metadata": {"b": 2}})
        await check(site, "POST", "/api/v1/refunds", "/api/v1/refunds", {"paymentId": PAYMENT, "amount": 1})
        await check(site, "POST", f"{base}/refund", f"{path}/refund", {"amount": 1000})
        await check(site, "POST", f"{base}/cancel", f"{path}/cancel", {})
        for who in (ANN, ADMIN, SERVICE, BOB, NOBODY):
            await check(site, "GET", base, path, who=who)
            await check(site, "GET", f"{base}/timeline", f"{path}/timeline", who=who)
            await check(site, "GET", "/api/v1/payments", "/api/v1/payments", who=who)
        other = await site.created("order-2")
        await check(site, "POST", f"{base}/process", f"{other}/process", {"paymentMethodId": "tok_threeDSecure"})
        shown = await check(site, "GET", base, other)
        assert shown["nextAction"] is not None
        assert (await check(site, "GET", base, other, who=ADMIN))["nextAction"] is None, "it is the shopper's alone"
        await check(site, "POST", "/api/v1/payment-methods", "/api/v1/payment-methods", VISA)
        await check(site, "GET", "/api/v1/payment-methods", "/api/v1/payment-methods")
        await check(site, "GET", "/ready", "/ready")


# --- tokens ----------------------------------------------------------------------------------------------------

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hand(header: dict[str, Any], claims: dict[str, Any], key: bytes) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    mac = hmac.new(key, b".".join(parts), hashlib.sha256).digest() if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


GOOD = {"sub": "user-1", "exp": NOW_S + 600, "iss": "shop", "aud": "payments"}
SHARED = TokenRules(secret=SECRET, issuer="shop", audience="payments")
PUBLIC = TokenRules(secret=SECRET, public_key=PEM.decode(), issuer="shop", audience="payments")
HS = {"alg": "HS256", "typ": "JWT"}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    ("rules", "token", "status"),
    [
        (SHARED, by_hand(HS, GOOD, SECRET.encode()), 200),
        (SHARED, by_hand({**HS, "jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/x", "jwk": {"kty": "oct",
                          "k": "AA"}}, GOOD, SECRET.encode()), 200),
        (SHARED, by_hand({**HS, "jwk": {"kty": "oct", "k": "AAAA"}}, GOOD, b"\0\0\0"), 401),
        (SHARED, by_hand({"alg": "none"}, GOOD, b""), 401),
        (SHARED, by_hand({"alg": "HS384"}, GOOD, SECRET.encode()), 401),
        (SHARED, by_hand(HS, {**GOOD, "exp": NOW_S - 1}, SECRET.encode()), 401),
        (SHARED, by_hand(HS, {**GOOD, "nbf": NOW_S + 60}, SECRET.encode()), 401),
        (SHARED, by_hand(HS, {**GOOD, "iss": "another"}, SECRET.encode()), 401),
        (SHARED, by_hand(HS, {**GOOD, "aud": "another"}, SECRET.encode()), 401),
        *((SHARED, by_hand(HS, without(name), SECRET.encode()), 401) for name in ("exp", "iss", "aud", "sub")),
        (PUBLIC, jwt.encode(GOOD, KEY, algorithm="RS256"), 200),
        (PUBLIC, by_hand(HS, GOOD, PEM), 401),  # the public key as a shared secret
        (PUBLIC, by_hand(HS, GOOD, SECRET.encode()), 401),
        (PUBLIC, by_hand({"alg": "none"}, GOOD, b""), 401),
        (PUBLIC, jwt.encode(GOOD, KEY, algorithm="PS256"), 401),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",  # keys are new in each process
)  # fmt: skip
async def test_09_only_tokens_of_the_pinned_kind_are_believed(rules: TokenRules, token: str, status: int) -> None:
    """A 2, V 9.1, 9.2. The header of a token decides nothing, and nothing that it names is fetched or used."""
    client = await opened(services_with(RecordedRequests(), rules))
    try:
        got, _ = await ask(client, "GET", f"/api/v1/payments/{PAYMENT}", Authorization=f"Bearer {token}")
        assert got == status
    finally:
        await client.close()
