"""What is asked over the network: providers, Redis, the order service, key sets, the collector of traces.

Room: adapters/checks. Nothing is changed anywhere. No answer's body, and no address with a password, is told.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from payment_service.adapters.checks.given import MENDS
from payment_service.adapters.providers import find_providers
from payment_service.adapters.providers.registration import Hello
from payment_service.adapters.settings import Settings
from payment_service.core.doctor import Area, Doctor, Finding
from payment_service.core.ports import Clock

ASK_S = 8.0
SKEW_WRONG_S = 60.0
"""Signatures of webhooks are good for 300 s, and leases last 30 s."""
SKEW_WARNING_S = 5.0


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: its status, what time the other side has, and the body if it is JSON."""

    status: int
    at_ms: int | None
    body: Any = None


async def of_providers(settings: Settings, clock: Clock) -> list[Finding]:
    doctor = Doctor(Area.PROVIDERS)
    asking: list[Coroutine[Any, Any, list[Finding]]] = []
    found: list[Finding] = []
    for name, one in find_providers().items():
        if not one.configured(settings):
            continue
        hello = one.hello(settings) if one.hello is not None else None
        if hello is None:
            found.append(doctor.ok(name.lower(), "is configured; it is in this process"))
        else:
            asking.append(_provider(doctor, name, hello, clock))
    for answers in await asyncio.gather(*asking):
        found += answers
    configured = {name.lower() for name, one in find_providers().items() if one.configured(settings)}
    if settings.default_provider not in configured and not settings.is_production:  # there it stops the start
        what = f"payments that name no provider go to {settings.default_provider}, which has no keys: 422"
        found.append(doctor.wrong("PAYMENT_PROVIDER", what, MENDS["PAYMENT_PROVIDER"]))
    return found


async def _provider(doctor: Doctor, name: str, hello: Hello, clock: Clock) -> list[Finding]:
    check, host = name.lower(), urlsplit(hello.url).netloc
    told = await _ask(hello.method, hello.url, hello.headers, hello.body)
    if isinstance(told, str):
        return [
            doctor.wrong(check, f"{host} cannot be reached: {told}", "network, DNS, proxy or firewall on the way out")
        ]
    if told.status in (401, 403):
        what = f"{host} does not accept our keys ({told.status})"
        return [doctor.wrong(check, what, MENDS.get(hello.setting, f"set {hello.setting}"))]
    if told.status >= 500 or told.status == 429:
        return [doctor.warning(check, f"{host} answers {told.status}", "the provider's status page; try again later")]
    found = [doctor.ok(check, f"{host} accepts our keys")]
    if told.status >= 400:
        found = [
            doctor.warning(check, f"{host} answers {told.status} to a harmless question", "is it the right address?")
        ]
    if told.at_ms is not None:
        found.append(skew(doctor, f"clock against {check}", told.at_ms, clock.now_ms()))
    return found


def skew(doctor: Doctor, check: str, theirs_ms: int, ours_ms: int) -> Finding:
    """`theirs_ms` of HTTP has whole seconds."""
    ahead_s = (ours_ms - theirs_ms) / 1000
    what = f"our clock is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}"
    mend = "NTP on this machine (timedatectl set-ntp true), or on theirs"
    if abs(ahead_s) > SKEW_WRONG_S:
        return doctor.wrong(check, f"{what}: tokens, webhooks and leases are judged by it", mend)
    if abs(ahead_s) > SKEW_WARNING_S:
        return doctor.warning(check, what, mend)
    return doctor.ok(check, "agrees within a few seconds")


async def of_surroundings(settings: Settings) -> list[Finding]:
    doctor, asking = Doctor(Area.AROUND), []
    if settings.redis_url is not None:
        asking.append(_redis(doctor, settings.redis_url.get_secret_value()))
    if settings.order_service_url is not None:
        asking.append(_order_service(doctor, settings.order_service_url))
    if settings.jwt_jwks_url is not None:
        asking.append(_key_set(doctor, settings.jwt_jwks_url))
    if settings.otel_exporter_otlp_endpoint is not None:
        asking.append(_collector(doctor, settings.otel_exporter_otlp_endpoint))
    found = list(await asyncio.gather(*asking))
    return found or [doctor.skipped("around", "no Redis, order service, key set or collector is set")]


async def _redis(doctor: Doctor, url: str) -> Finding:
    mend = "REDIS_URL=redis://HOST:6379/0, and a Redis 6 or newer there; without it reads are slower"
    try:
        from redis.exceptions import RedisError

        from payment_service.adapters.redis_client import redis_client
    except ImportError:
        return doctor.wrong(
            "redis", "REDIS_URL is set, and the extra `redis` is not installed", "pip install 'payment-service[redis]'"
        )
    try:
        client = redis_client(url, ASK_S, 1)
    except ValueError:
        return doctor.wrong("redis", "REDIS_URL is no address of a Redis", mend)
    try:
        async with asyncio.timeout(ASK_S):
            told = await client.info("server")
    except (RedisError, OSError, TimeoutError) as error:
        return doctor.wrong("redis", f"does not answer: {type(error).__name__}", mend)
    finally:
        await client.aclose()
    version = str(told.get("redis_version", "?"))
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < 6:
        return doctor.wrong("redis", f"version {version} is too old", "Redis 6 or newer, or Valkey")
    return doctor.ok("redis", f"version {version} answers")


async def _order_service(doctor: Doctor, url: str) -> Finding:
    told = await _ask("GET", f"{url}/health", {})
    if isinstance(told, str):
        what = f"{urlsplit(url).netloc} cannot be reached: {told}; no payment can be created without it"
        return doctor.wrong("order service", what, "ORDER_SERVICE_URL, or its network; empty asks nobody")
    return doctor.ok("order service", f"{urlsplit(url).netloc} answers")


async def _key_set(doctor: Doctor, url: str) -> Finding:
    told = await _ask("GET", url, {})
    mend = "JWT_JWKS_URL: the address of the key set of whoever signs the users' tokens"
    if isinstance(told, str):
        return doctor.wrong(
            "key set", f"{urlsplit(url).netloc} cannot be reached: {told}; no token can be verified", mend
        )
    keys = told.body.get("keys") if isinstance(told.body, dict) else None
    if told.status != 200 or not isinstance(keys, list) or not keys:
        return doctor.wrong("key set", f"{urlsplit(url).netloc} has no keys there ({told.status})", mend)
    return doctor.ok("key set", f"{len(keys)} keys")


async def _collector(doctor: Doctor, url: str) -> Finding:
    told = await _ask("POST", f"{url}/v1/traces", {"Content-Type": "application/x-protobuf"})
    if isinstance(told, str):
        what = f"{urlsplit(url).netloc} cannot be reached: {told}; traces are dropped"
        return doctor.warning("traces", what, "OTEL_EXPORTER_OTLP_ENDPOINT: a collector's OTLP over HTTP, port 4318")
    return doctor.ok("traces", f"{urlsplit(url).netloc} answers")


async def _ask(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Told | str:
    """What was answered, or why nothing was."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session,
            session.request(method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            date = answer.headers.get("Date")
            at_ms = int(parsedate_to_datetime(date).timestamp() * 1000) if date else None
            try:
                parsed = await answer.json(content_type=None)
            except ValueError:
                parsed = None
            return Told(answer.status, at_ms, parsed)
    except aiohttp.ClientConnectorDNSError:
        return "its name is not known"
    except aiohttp.ClientConnectorCertificateError:
        return "its certificate is not trusted here"
    except aiohttp.ClientConnectorError as error:
        return error.strerror or "no connection"
    except TimeoutError:
        return "no answer in time"
    except (aiohttp.ClientError, ValueError) as error:
        return type(error).__name__
