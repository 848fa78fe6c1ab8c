"""Which tokens are taken, and above all which are not."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from rigs.settable_clock import SettableClock
from rigs.web_site import NOW_S, RULES, SECRET, SERVICE_TOKEN

from payment_service.core.errors import Refused
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web import tokens
from payment_service.web.tokens import TokenRules, TokenVerifier, issue_token

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ann", "exp": int(NOW_S) + 600, **more}


def hs256(payload: dict[str, Any], secret: str = SECRET) -> str:
    return jwt.encode(payload, secret, algorithm="HS256")


def verifier(rules: TokenRules = RULES, clock: SettableClock | None = None) -> TokenVerifier:
    return TokenVerifier(rules, clock or SettableClock(NOW_S))


def refused(token: str, rules: TokenRules = RULES) -> None:
    with pytest.raises(Refused) as caught:
        verifier(rules).bearer(token)
    assert caught.value.code == "UNAUTHORIZED"
    assert caught.value.__cause__ is None


def by_hand(header: dict[str, Any] | str, payload: dict[str, Any], key: bytes = b"") -> str:
    """A token as no library would make it."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    text = header if isinstance(header, str) else json.dumps(header)
    signed = part(text.encode()) + b"." + part(json.dumps(payload).encode())
    signature = hmac.new(key, signed, hashlib.sha256).digest() if key else b""
    return (signed + b"." + part(signature)).decode()


def test_user_and_roles() -> None:
    assert verifier().bearer(hs256(claims(roles=["admin", "x"]))) == Caller("ann", frozenset({"admin", "x"}))
    assert verifier().bearer(hs256(claims(roles="admin x"))) == Caller("ann", frozenset({"admin", "x"}))
    assert verifier().bearer(hs256(claims(roles={"admin": True}))) == Caller("ann")
    assert verifier().bearer(hs256(claims(roles=["x", 1, None]))) == Caller("ann", frozenset({"x"}))
    assert verifier().bearer(hs256({"userId": "bob", "exp": NOW_S + 60})) == Caller("bob")
    assert verifier().bearer(hs256(claims(userId="bob"))) == Caller("ann")


@pytest.mark.parametrize(
    "payload",
    [
        {"sub": "ann"},
        claims(exp=int(NOW_S)),
        claims(exp=int(NOW_S) - 1),
        claims(exp="never"),
        claims(exp=None),
        claims(exp=True),
        claims(exp=float("inf")),
        claims(exp=float("nan")),
        claims(nbf=int(NOW_S) + 5),
        claims(nbf="soon"),
        {"exp": NOW_S + 60},
        claims(sub=""),
        claims(sub=7),
        claims(sub="a\nb"),
        claims(sub="a\x00b"),
        claims(sub="a" * 129),
    ],
    ids=repr,
)
def test_refused_claims(payload: dict[str, Any]) -> None:
    refused(by_hand({"alg": "HS256", "typ": "JWT"}, payload, SECRET.encode()))


def test_the_forger_itself_is_believed_when_it_does_nothing_wrong() -> None:
    assert verifier().bearer(by_hand({"alg": "HS256"}, claims(), SECRET.encode())) == Caller("ann")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS384", "RS256", 5, None])
def test_the_token_does_not_choose_its_algorithm(algorithm: Any) -> None:
    refused(by_hand({"alg": algorithm}, claims()))
    refused(by_hand({"alg": algorithm}, claims(), SECRET.encode()))


def test_other_secrets_are_refused() -> None:
    refused(hs256(claims(), "another-secret-of-more-than-32-characters"))


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "é.é.é", "x" * 9000, by_hand("[" * 5000, {}), by_hand("9" * 5000, {}), by_hand("[]", {})],
    ids=lambda token: token[:12] or "empty",
)
def test_nonsense_is_refused_and_breaks_nothing(token: str) -> None:
    refused(token)


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256")])
def test_public_keys(key: Any, algorithm: str) -> None:
    pem = public_pem(key)
    rules = TokenRules(secret=SECRET, public_key=pem)
    token = jwt.encode(claims(), private_pem(key), algorithm=algorithm)
    assert verifier(rules).bearer(token) == Caller("ann")
    assert verifier(TokenRules(public_key=pem.replace("\n", "\\n"))).bearer(token) == Caller("ann")
    # The public key is known to everybody: it must not work as a secret. Nor does JWT_SECRET beside it.
    refused(by_hand({"alg": "HS256"}, claims(), pem.encode()), rules)
    refused(hs256(claims()), rules)
    refused(by_hand({"alg": "none"}, claims()), rules)
    refused(by_hand({"alg": algorithm}, claims(), pem.encode()), rules)
    with pytest.raises(ValueError):
        issue_token(rules, "ann", [], now_ms=0)


def test_other_algorithms_of_the_same_key_are_refused() -> None:
    rules = TokenRules(public_key=public_pem(RSA_KEY))
    for algorithm in ("RS384", "RS512", "PS256"):
        refused(jwt.encode(claims(), private_pem(RSA_KEY), algorithm=algorithm), rules)


@pytest.mark.parametrize(
    "rules",
    [
        TokenRules(secret="short"),
        TokenRules(public_key=public_pem(ec.generate_private_key(ec.SECP384R1()))),
        TokenRules(public_key=public_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))),
        TokenRules(public_key="no key"),
    ],
)
def test_keys_that_cannot_be_used_stop_the_start(rules: TokenRules) -> None:
    with pytest.raises(ValueError):
        verifier(rules)


def test_without_a_key_nobody_is_believed() -> None:
    refused(hs256(claims()), TokenRules())
    refused(by_hand({"alg": "none"}, claims()), TokenRules())


def test_issuer_and_audience_are_checked_when_set() -> None:
    rules = TokenRules(secret=SECRET, issuer="shop", audience="payments")
    assert verifier(rules).bearer(hs256(claims(iss="shop", aud="payments"))) == Caller("ann")
    assert verifier(rules).bearer(hs256(claims(iss="shop", aud=["x", "payments"]))) == Caller("ann")
    others: list[dict[str, str]] = [{"iss": "x", "aud": "payments"}, {"iss": "shop", "aud": "x"}]
    for wrong in ({}, {"iss": "shop"}, {"aud": "payments"}, *others):
        refused(hs256(claims(**wrong)), rules)
    assert verifier().bearer(hs256(claims(iss="any", aud="any"))) == Caller("ann")
    token = issue_token(rules, "bob", ["admin"], now_ms=int(NOW_S * 1000))
    assert verifier(rules).bearer(token) == Caller("bob", frozenset({"admin"}))


def test_a_remembered_token_ends_with_its_exp() -> None:
    clock = SettableClock(NOW_S)
    checks = verifier(clock=clock)
    token = hs256(claims(exp=int(NOW_S) + 10))
    checks.bearer(token)
    clock.pass_s(9)
    checks.bearer(token)
    clock.pass_s(1)
    with pytest.raises(Refused):
        checks.bearer(token)


def test_tokens_are_verified_once_and_remembered_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    decode = jwt.decode

    def counted(token: str, *args: Any, **options: Any) -> Any:
        verified.append(token)
        return decode(token, *args, **options)

    monkeypatch.setattr(tokens.jwt, "decode", counted)
    monkeypatch.setattr(tokens, "TOKENS_CACHED_MAX", 2)
    clock = SettableClock(NOW_S)
    checks = verifier(clock=clock)
    first, second, third = (hs256(claims(sub=name, exp=int(NOW_S) + 9999)) for name in ("a", "b", "c"))
    for token in (first, second, first, third, first):
        checks.bearer(token)
    assert verified == [first, second, third]
    checks.bearer(second)
    assert verified == [first, second, third, second]
    clock.pass_s(tokens.TOKEN_CACHED_S_MAX)
    checks.bearer(second)
    assert verified[4:] == [second]
    assert all(token.encode() not in key for key in checks._seen for token in verified)


def test_services() -> None:
    digest = hashlib.sha256(b"other").digest()
    ends_ms = int(NOW_S * 1000) + 1000
    clock = SettableClock(NOW_S)
    checks = verifier(TokenRules(secret=SECRET, internal_tokens=(*RULES.internal_tokens, (digest, ends_ms))), clock)
    assert checks.internal(SERVICE_TOKEN) == checks.internal("other") == Caller(None, frozenset({"service"}))
    for wrong in ("", "x", SERVICE_TOKEN + "x", digest.hex(), f"sha256:{digest.hex()}", "\udce9"):
        with pytest.raises(Refused):
            checks.internal(wrong)
    clock.pass_s(1)
    with pytest.raises(Refused):
        checks.internal("other")
    empty = verifier(TokenRules(secret=SECRET))
    assert not empty.takes_internal
    with pytest.raises(Refused):
        empty.internal("")


def test_nothing_secret_is_shown() -> None:
    shown = repr(RULES) + repr(verifier())
    assert SECRET not in shown
    assert repr(RULES.internal_tokens[0][0]) not in shown
