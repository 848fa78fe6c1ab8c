"""What stands around every page: limits, origins, HTTPS, and the headers that make browsers careful."""

import re
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from rigs.web_site import ANN, BOB, PATH, SERVICE, Client, RecordedRequests, ask, opened, services_with

from payment_service.web.middleware.rate_limit import SERVICE_FACTOR
from payment_service.web.rate_limits import Quota, Windows

SHOP = "https://shop.example"
LOCAL = (ip_network("127.0.0.0/8"),)


async def site(**more: Any) -> Client:
    return await opened(replace(services_with(RecordedRequests()), **more))


# --- how often -------------------------------------------------------------------------------------------------


async def test_a_user_has_a_quota_and_is_told_what_is_left() -> None:
    client = await site(rate_limit_max=2, rate_limit_window_s=900.0)
    for left in (1, 0):
        async with client.get(PATH, headers=ANN) as answer:
            assert answer.status == 200
            assert answer.headers["RateLimit-Policy"] == '"user";q=2;w=900'
            assert answer.headers["RateLimit"].startswith(f'"user";r={left};t=')
    async with client.get(PATH, headers=ANN) as answer:
        assert answer.status == 429
        assert (await answer.json())["code"] == "RATE_LIMITED"
        assert 0 < int(answer.headers["Retry-After"]) <= 900
    # Others are not touched, nor is a service by a user's quota; probes have none.
    assert (await ask(client, "GET", PATH, **BOB))[0] == 404
    for _ in range(5):
        assert (await ask(client, "GET", "/api/v1/payments/x", **SERVICE))[0] != 429
        assert (await ask(client, "GET", "/health"))[0] == 200
    await client.close()


HERE, THERE = {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "203.0.113.8"}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (PATH, {}, 401),
        (PATH, {"Authorization": "Bearer x.y.z"}, 401),
        (PATH, {"X-Internal-Token": "guessed"}, 401),
        ("/nowhere", {}, 404),
        ("/mock/approve/x", {}, 404),
        ("/api-docs/openapi.yaml", {}, 200),
    ],
)
async def test_who_is_nobody_is_counted_by_address(path: str, headers: dict[str, str], status: int) -> None:
    client = await site(trusted_proxies=LOCAL, rate_limit_max=3, rate_limit_window_s=900.0)
    for left in (2, 1, 0):
        async with client.get(path, headers={**HERE, **headers}) as answer:
            assert answer.status == status
            assert answer.headers["RateLimit"].startswith(f'"address";r={left};t=')
    async with client.get(path, headers={**HERE, **headers}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (429, "RATE_LIMITED")
        assert answer.headers["Retry-After"] == "900"
    # Nobody else pays for it: another address, whoever has a good token, probes.
    async with client.get(path, headers={**THERE, **headers}) as answer:
        assert answer.status == status
    assert (await ask(client, "GET", PATH, **{**ANN, **HERE}))[0] == 200
    for _ in range(5):
        assert (await ask(client, "GET", "/health", **HERE))[0] == 200
        assert (await client.get("/metrics", headers=HERE)).status == 200
    await client.close()


async def test_an_address_is_not_what_the_caller_writes() -> None:
    client = await site(rate_limit_max=3)  # no proxy is trusted
    for number in range(3):
        await ask(client, "GET", PATH, **{"X-Forwarded-For": f"198.51.100.{number}"})
    assert (await ask(client, "GET", PATH, **{"X-Forwarded-For": "192.0.2.1"}))[0] == 429
    await client.close()


@pytest.mark.parametrize("who", [ANN, SERVICE])
async def test_what_moves_money_has_a_smaller_quota_beside(who: dict[str, str]) -> None:
    name, factor = ("user", 1) if who is ANN else ("service", SERVICE_FACTOR)
    client = await site(rate_limit_max=10, rate_limit_window_s=900.0)
    for number in range(6 * factor):
        async with client.post(f"{PATH}/refund", headers=who, json={}) as answer:
            assert answer.status == 200, number
    assert answer.headers["RateLimit-Policy"] == (
        f'"{name}";q={10 * factor};w=900, "{"money" if who is ANN else "service-money"}";q={6 * factor};w=900'
    )
    assert re.fullmatch(rf'"{name}";r={4 * factor};t=900, "[a-z-]*money";r=0;t=900', answer.headers["RateLimit"])
    for path in ("refund", "process", "capture"):
        async with client.post(f"{PATH}/{path}", headers=who, json={}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (429, "RATE_LIMITED")
            assert answer.headers["Retry-After"] == "900"
    async with client.get(PATH, headers=who) as answer:  # what moves none goes on, and all is counted
        assert answer.status == 200 and answer.headers["RateLimit"].startswith(f'"{name}";r={4 * factor - 4};')
    await client.close()


def test_windows_end_and_are_bounded() -> None:
    windows = Windows(Quota("q", 2, 10.0), keys_max=3)
    assert [windows.hit("a", 0.0).remaining for _ in range(3)] == [1, 0, -1]
    assert windows.look("a", 9.9).exceeded and not windows.look("a", 10.0).exceeded
    assert windows.hit("a", 10.0).remaining == 1
    for key in ("b", "c", "d", "e"):
        windows.hit(key, 11.0)
    assert windows.look("a", 11.0).remaining == 2  # forgotten: the oldest window


# --- browsers --------------------------------------------------------------------------------------------------


async def preflight(client: Client, origin: str, path: str = PATH) -> tuple[int, dict[str, str]]:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with client.options(path, headers=headers) as answer:
        return answer.status, dict(answer.headers)


async def test_only_named_origins_may_call_and_never_all() -> None:
    client = await site(allowed_origins=frozenset({SHOP}))
    status, headers = await preflight(client, SHOP)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == SHOP
    assert "Idempotency-Key" in headers["Access-Control-Allow-Headers"]
    async with client.get(PATH, headers={**ANN, "Origin": SHOP}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
        assert answer.headers["Vary"] == "Origin"
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    for origin in ("https://evil.example", "https://shop.example.evil.example", "null", f"{SHOP}:8443"):
        status, headers = await preflight(client, origin)
        assert status == 405 and "Access-Control-Allow-Origin" not in headers
        async with client.get(PATH, headers={**ANN, "Origin": origin}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
    await client.close()


async def test_without_origins_nothing_is_said_about_them() -> None:
    client = await site()
    status, headers = await preflight(client, SHOP)
    assert status == 405 and not [name for name in headers if name.startswith("Access-Control")]
    await client.close()


async def test_refusals_can_be_read_by_the_page_that_asked() -> None:
    client = await site(allowed_origins=frozenset({SHOP}))
    async with client.get(PATH, headers={"Origin": SHOP}) as answer:
        assert answer.status == 401 and answer.headers["Access-Control-Allow-Origin"] == SHOP
    await client.close()


@pytest.mark.parametrize("path", [PATH, "/health", "/metrics", "/nowhere", "/api-docs", "/api/v1/payments"])
async def test_every_answer_has_the_careful_headers(path: str) -> None:
    client = await site(https_only=True)
    async with client.get(path, headers=ANN) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        assert answer.headers["Server"] == "payment-service"
        assert "Cache-Control" in answer.headers
    await client.close()


# --- https -----------------------------------------------------------------------------------------------------


async def test_plain_http_is_refused_when_a_proxy_of_ours_says_that_it_was() -> None:
    client = await site(https_only=True, trusted_proxies=LOCAL)
    plain = {**ANN, "X-Forwarded-Proto": "http"}
    status, envelope = await ask(client, "GET", PATH, **plain)
    assert (status, envelope["code"]) == (403, "FORBIDDEN")
    assert (await ask(client, "GET", PATH, **{**ANN, "X-Forwarded-Proto": "https"}))[0] == 200
    assert (await ask(client, "GET", PATH, **{**ANN, "X-Forwarded-Proto": "http, https"}))[0] == 200
    assert (await ask(client, "GET", "/ready", **plain))[0] == 200
    await client.close()


async def test_outside_production_plain_http_is_fine() -> None:
    client = await site(trusted_proxies=LOCAL)
    assert (await ask(client, "GET", PATH, **{**ANN, "X-Forwarded-Proto": "http"}))[0] == 200
    await client.close()


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "OPTIONS"])
async def test_unknown_methods_are_405_with_the_allowed_ones(method: str) -> None:
    client = await site()
    async with client.request(method, PATH, headers=ANN) as answer:
        assert answer.status == 405 and answer.headers["Allow"] == "GET,HEAD"
    await client.close()
