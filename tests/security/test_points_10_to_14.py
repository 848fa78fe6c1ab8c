"""Points 10-14 of the security check-list: services' keys, sizes, how often, never more than the balance, no illegal
step. OWASP API Security 2023 (A), ASVS 5.0 (V), PCI DSS 4.0.1 (P)."""

import asyncio
import hmac
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rigs.keyed_site import shop_on
from rigs.settable_clock import SettableClock
from rigs.web_site import (
    ANN,
    BOB,
    NOW_S,
    PATH,
    SECRET,
    Client,
    RecordedRequests,
    ask,
    bearer,
    opened,
    services_with,
)
from rigs.whole_site import whole_site

from payment_service.adapters.settings import Settings
from payment_service.core.ids import payment_id_of
from payment_service.web import tokens
from payment_service.web.bodies import METADATA_DEPTH_MAX
from payment_service.web.services import BODY_BYTES_MAX
from payment_service.web.tokens import TokenRules

# --- 10 --------------------------------------------------------------------------------------------------------

NAMES = ("first-service-token", "second-service-token", "third-service-token")
ENDS_MS = int(NOW_S * 1000) + 60_000


def rules(*names: str, ends_ms: int | None = None) -> TokenRules:
    return TokenRules(SECRET, internal_tokens=[(sha256(name.encode()).digest(), ends_ms) for name in names])


async def let_in(client: Client, token: str) -> bool:
    async with client.get(PATH, headers={"X-Internal-Token": token}) as answer:
        assert answer.status in (200, 401)
        return answer.status == 200


async def test_10_keys_of_services_are_kept_as_digests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """V 11.2.4: of the setting nothing but the digest is left, in whatever it is shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERNAL_TOKENS", f"{NAMES[0]};exp=2027-01-31,sha256:{sha256(NAMES[1].encode()).hexdigest()}")
    settings = Settings.load()
    assert [digest for digest, _ in settings.internal_tokens] == [sha256(name.encode()).digest() for name in NAMES[:2]]
    held = TokenRules(SECRET, internal_tokens=settings.internal_tokens)
    for shown in (repr(settings), str(settings), repr(held)):
        assert NAMES[0] not in shown and sha256(NAMES[0].encode()).hexdigest() not in shown


async def test_10_keys_end_and_are_taken_back() -> None:
    """P 8.6.2, A 2."""
    clock = SettableClock(NOW_S)
    client = await opened(services_with(RecordedRequests(), rules(*NAMES[:2], ends_ms=ENDS_MS), clock))
    fewer = await opened(services_with(RecordedRequests(), rules(NAMES[1]), clock))
    try:
        assert [await let_in(client, name) for name in NAMES] == [True, True, False]
        assert [await let_in(fewer, name) for name in NAMES] == [False, True, False]
        clock.pass_s(61)
        assert not [name for name in NAMES if await let_in(client, name)]
    finally:
        await client.close()
        await fewer.close()


async def test_10_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one fits, and where one stops to fit, costs the same time: all are compared, by compare_digest alone."""
    compared: list[bytes] = []

    def noting(one: Any, other: Any) -> bool:
        compared.append(other)
        return hmac.compare_digest(one, other)

    class Noting:
        compare_digest = staticmethod(noting)

    monkeypatch.setattr(tokens, "hmac", Noting)
    client = await opened(services_with(RecordedRequests(), rules(*NAMES)))
    try:
        for token in (NAMES[0], NAMES[2], "none of them"):
            compared.clear()
            await let_in(client, token)
            assert len(compared) == len(NAMES)
    finally:
        await client.close()


# --- 11 --------------------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b" " * (BODY_BYTES_MAX + 1), 413),
        (b'{"orderId":' + b"[" * 100_000, 400),
        (json.dumps({"orderId": "o", "amount": 1, "metadata": nested(METADATA_DEPTH_MAX)}).encode(), 422),
        (json.dumps({"orderId": "o", "amount": 1, "metadata": {str(n): n for n in range(51)}}).encode(), 422),
        (json.dumps({"orderId": "o", "amount": 1, "metadata": {"a": ["x"] * 3000}}).encode(), 422),
        (json.dumps({"orderId": "o", "amount": 1, "description": "x" * 501}).encode(), 422),
        (json.dumps({"orderId": "o" * 129, "amount": 1}).encode(), 422),
        (b'{"orderId":"o","amount":' + b"9" * 5000 + b"}", 400),
        (json.dumps({"orderId": "o", "amount": "1" * 5000}).encode(), 422),
        (json.dumps({f"field{n}": n for n in range(5000)}).encode(), 422),
    ],
    ids=range(10),
)
async def test_11_sizes_are_bounded(body: bytes, status: int) -> None:
    """A 4, V 15.2.2. And what is said about a bad body is short, however large that was."""
    async with whole_site() as site:
        async with site.client.post("/api/v1/payments", data=body, headers=ANN) as answer:
            assert answer.status == status
            assert len(await answer.read()) < 4096
        assert (await site.now("/api/v1/payments"))["total"] == 0


@pytest.mark.parametrize("query", ["limit=101", "limit=0", "offset=10001", f"userId={'x' * 129}", "limit=99999999999"])
async def test_11_pages_are_bounded(query: str) -> None:
    async with whole_site() as site:
        assert (await site.ask("GET", f"/api/v1/payments?{query}"))[0] == 422


async def test_11_a_slow_body_ends() -> None:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" "
            await asyncio.sleep(0.02)

    client = await opened(services_with(RecordedRequests(), body_timeout_s=0.1))
    try:
        async with client.post("/api/v1/payments", data=drops(), headers=ANN) as answer:
            assert answer.status == 408
    finally:
        await client.close()


# --- 12 --------------------------------------------------------------------------------------------------------


async def test_12_users_and_addresses_have_limits() -> None:
    """A 4, V 2.4.1: each caller by name, whoever fails to be one by address; told when to come again."""
    async with whole_site(rate_limit_max=5, rate_limit_window_s=60.0) as site:
        answers = [await site.ask("POST", f"{PATH}/cancel", {}) for _ in range(7)]
        assert [status for status, _ in answers].count(429) == 2
        assert answers[-1][1]["code"] == "RATE_LIMITED"
        assert (await site.ask("GET", PATH, who=BOB))[0] == 404
        async with site.client.get(PATH, headers=ANN) as answer:
            assert 0 < int(answer.headers["Retry-After"]) <= 60
            assert re.fullmatch(r'"user";r=0;t=\d+', answer.headers["RateLimit"])
        codes = Counter([(await ask(site.client, "GET", PATH))[1]["code"] for _ in range(8)])
        assert codes == {"UNAUTHORIZED": 5, "RATE_LIMITED": 3}
        site.clock.pass_s(61)
        assert (await site.ask("GET", "/api/v1/payments"))[0] == 200


async def test_12_routes_that_move_money_have_a_stricter_limit() -> None:
    """A 6: stolen cards are tried by the hundred, so what tries one ends long before what reads does."""
    async with whole_site(rate_limit_max=20) as site:
        for method, path, calls in (
            ("POST", f"{PATH}/process", 12), ("POST", f"{PATH}/capture", 12), ("POST", f"{PATH}/refund", 12),
            ("POST", "/api/v1/refunds", 12), ("POST", "/api/v1/payment-methods", 12), ("GET", PATH, 20),
            ("GET", "/api/v1/payment-methods", 20), ("POST", "/api/v1/payments", 20),
        ):  # fmt: skip
            who = bearer(f"user of {method} {path}")
            codes = [(await site.ask(method, path, who=who))[1].get("code") for _ in range(21)]
            assert codes.index("RATE_LIMITED") == calls, path


# --- 13 --------------------------------------------------------------------------------------------------------

AT_ONCE = 50


async def test_13_fifty_refunds_at_once_give_back_no_more_than_was_taken(database_url: str) -> None:
    """V 2.3.3, 2.3.4, 15.4.2: through two workers on one PostgreSQL; the provider's books are the judge."""
    async with shop_on(database_url) as shop:
        path = await shop.charged("o1")
        sites = (shop.a, shop.b)
        told = await asyncio.gather(
            *[sites[n % 2].post(f"{path}/refund", {"amount": 1}) for n in range(AT_ONCE // 2)],
            *[
                sites[n % 2].post("/refunds", {"paymentId": payment_id_of("o1"), "amount": 1}, user=None)
                for n in range(AT_ONCE // 2)
            ],
        )
        assert {one.status for one in told} <= {200, 202, 422, 503}, Counter(one.code for one in told)
        assert {one.code for one in told if one.status == 422} == {"REFUND_EXCEEDS"}
        while (rest := await shop.a.post(f"{path}/refund", {"amount": 1})).status != 422:  # at most ten fit
            assert rest.status in (200, 202)
        assert shop.moved() == {"CHARGE": 1, "REFUND": 10}
        assert shop.provider.taken(payment_id_of("o1")) == 0


async def test_13_fifty_captures_at_once_take_the_money_once(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        path = await shop.created("o1", captureMethod="manual")
        assert (await shop.a.post(f"{path}/process", {"paymentMethodId": "tok_visa"})).data["status"] == "AUTHORIZED"
        sites = (shop.a, shop.b)
        told = await asyncio.gather(*[sites[n % 2].post(f"{path}/capture", {"amount": 6}) for n in range(AT_ONCE)])
        assert {one.status for one in told} <= {200, 202, 409, 503}, Counter(one.code for one in told)
        assert shop.moved() == {"AUTHORIZE": 1, "CAPTURE": 1}
        assert shop.provider.taken(payment_id_of("o1")) == 600
        assert (await shop.b.post(f"{path}/capture", {"amount": 4})).status in (200, 409)
        assert shop.provider.taken(payment_id_of("o1")) == 600


# --- 14 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "step", "body"),
    [
        ((), "capture", {}),
        ((), "refund", {}),
        (("cancel",), "process", {}),
        (("cancel",), "capture", {}),
        (("cancel",), "refund", {}),
        (("process",), "capture", {}),
        (("process",), "cancel", {}),
        (("process", "refund"), "cancel", {}),
        (("decline",), "capture", {}),
        (("decline",), "refund", {}),
    ],
)
async def test_14_a_step_out_of_turn_is_a_conflict_and_changes_nothing(
    before: tuple[str, ...], step: str, body: dict[str, Any]
) -> None:
    """V 2.3.1."""
    bodies = {"process": {"paymentMethodId": "tok_visa"}, "decline": {"paymentMethodId": "tok_chargeDeclined"}}
    async with whole_site() as site:
        path = await site.created("order-1")
        for name in before:
            done, _ = await site.ask("POST", f"{path}/{name.replace('decline', 'process')}", bodies.get(name, {}))
            assert done == (402 if name == "decline" else 200)
        was, sent = await site.now(path), len(site.rig.provider.sent)
        status, envelope = await site.ask("POST", f"{path}/{step}", body)
        assert (status, envelope["code"]) == (409, "INVALID_STATE")
        assert await site.now(path) == was and len(site.rig.provider.sent) == sent


async def test_14_a_removed_method_pays_nothing() -> None:
    async with whole_site() as site:
        method = await site.saved()
        assert (await site.ask("DELETE", method))[0] == 200
        path = await site.created("order-1")
        status, envelope = await site.ask("POST", f"{path}/process", {"paymentMethodId": method.rpartition("/")[2]})
        assert (status, envelope["code"]) == (404, "NOT_FOUND")
        assert (await site.ask("PUT", f"{method}/default"))[0] == 404
        assert site.rig.provider.sent == []
