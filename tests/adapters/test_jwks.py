"""Keys from a real HTTP server: rotation, outages, and what is not a key for us."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from rigs.settable_clock import SettableClock
from servers.waiting import until

from payment_service.adapters.jwks import COOL_DOWN_S, JwksKeys
from payment_service.core.errors import Refused, Unavailable
from payment_service.web.tokens import TokenRules, TokenVerifier

RSA_KEY, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
NOW_S = 1_790_000_000


def entry(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm: Any = (
        jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return {**orjson.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


@dataclass(slots=True)
class Issuer:
    keys: list[dict[str, Any]] = field(default_factory=list)
    body: bytes | None = None
    asked: int = 0
    status: int = 200

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=self.body or orjson.dumps({"keys": self.keys}), status=self.status)


@dataclass(slots=True)
class Site:
    issuer: Issuer
    keys: JwksKeys
    clock: SettableClock

    def caller(self, key: Any, kid: str | None, algorithm: str = "RS256", **header: Any) -> str | None:
        headers = {**({"kid": kid} if kid is not None else {}), **header}
        token = jwt.encode({"sub": "ann", "exp": NOW_S + 600}, key, algorithm=algorithm, headers=headers)
        rules = TokenRules(secret="s" * 40)
        return TokenVerifier(rules, SettableClock(NOW_S), self.keys).bearer(token).user_id


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    issuer = Issuer([entry(RSA_KEY, "one"), entry(EC_KEY, "two")])
    app = web.Application()
    app.router.add_get("/keys", issuer.answer)
    async with TestServer(app) as server, ClientSession() as session:
        clock = SettableClock(NOW_S)
        yield Site(issuer, JwksKeys(str(server.make_url("/keys")), lambda: session, clock), clock)


async def test_tokens_of_the_sets_keys_are_taken_by_their_own_algorithm_alone(site: Site) -> None:
    await site.keys.refresh()
    assert site.caller(RSA_KEY, "one") == "ann"
    assert site.caller(EC_KEY, "two", "ES256") == "ann"
    for key, kid, algorithm in ((OTHER, "one", "RS256"), (RSA_KEY, "two", "RS256"), (RSA_KEY, None, "RS256")):
        with pytest.raises(Refused):
            site.caller(key, kid, algorithm)
    # JWT_SECRET is beside it in development: it must not work, whatever the header says.
    for kid in ("one", "two", None):
        with pytest.raises(Refused):
            site.caller("s" * 40, kid, "HS256")
    with pytest.raises(Refused):
        site.caller(OTHER, "one", jku="https://evil.example/keys", jwk=entry(OTHER, "one"))


async def test_before_the_first_fetch_the_caller_is_asked_to_come_again(site: Site) -> None:
    with pytest.raises(Unavailable):
        site.caller(RSA_KEY, "one")
    running = asyncio.create_task(site.keys.run())
    await until(lambda: site.keys._keys is not None, "the keys are fetched")
    assert site.caller(RSA_KEY, "one") == "ann"
    running.cancel()


async def test_a_new_key_is_found_and_invented_ones_cost_one_fetch_in_a_while(site: Site) -> None:
    await site.keys.refresh()
    site.issuer.keys.append(entry(OTHER, "three"))
    with pytest.raises(Refused):
        site.caller(OTHER, "three")  # looked for a moment ago
    site.clock.pass_s(COOL_DOWN_S)
    with pytest.raises(Unavailable):
        site.caller(OTHER, "three")
    await site.keys.refresh()
    assert site.caller(OTHER, "three") == "ann"
    with pytest.raises(Refused):
        site.caller(OTHER, "invented")
    assert site.issuer.asked == 2


async def test_a_withdrawn_key_ends_and_an_outage_ends_nothing(site: Site) -> None:
    await site.keys.refresh()
    for status, body in ((500, b""), (200, b"not json"), (200, b"[]"), (200, b'{"keys":[]}'), (200, b"x" * 300_000)):
        site.issuer.status, site.issuer.body = status, body
        await site.keys.refresh()
        assert site.caller(RSA_KEY, "one") == "ann"
    site.issuer.status, site.issuer.body, site.issuer.keys = 200, None, [entry(OTHER, "one")]
    await site.keys.refresh()
    with pytest.raises(Refused):
        site.caller(RSA_KEY, "one")
    assert site.caller(OTHER, None) == "ann"  # the only key there is


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_weak_and_foreign_keys_are_passed_over(site: Site) -> None:
    foreign = [{"kty": "oct", "k": "c2VjcmV0", "kid": "o"}, {"kty": "RSA", "kid": "broken"}]
    site.issuer.keys = [entry(SMALL, "small"), entry(RSA_KEY, "enc", use="enc"), *foreign, entry(OTHER, "good")]
    await site.keys.refresh()
    assert site.caller(OTHER, "good") == "ann"
    for key, kid in ((SMALL, "small"), (RSA_KEY, "enc")):
        with pytest.raises(Refused):
            site.caller(key, kid)
