"""Who calls: bearer tokens (JWT) of users, and the tokens of other services.

Room: web. The algorithm is pinned by what is configured, never by what the token says of itself; header fields that
name a key or a place to fetch one (`jku`, `x5u`, `jwk`) are never looked at. Every doubt is a 401.
"""

import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from payment_service.core.errors import Refused
from payment_service.core.ports import Clock
from payment_service.core.use_cases.payment_requests import Caller

TOKENS_CACHED_MAX = 10_000
"""Verified tokens remembered (about 600 B each); beyond it the least recently seen is verified again."""
TOKEN_CACHED_S_MAX = 300
"""A remembered token is verified again after this, also when it is valid for longer."""
TOKEN_LENGTH_MAX = 8192
USER_ID_LENGTH_MAX = 128
ROLES_MAX = 64
SECRET_LENGTH_MIN = 32
RSA_BITS_MIN = 2048
ISSUED_S = 3600
"""How long a token of `issue_token` is valid."""
SERVICE = Caller(None, frozenset({"service"}))


@dataclass(frozen=True, slots=True)
class TokenRules:
    """A key set wins over `public_key` (PEM), that over `secret`: then nothing signed with the secret is accepted."""

    secret: str | None = field(default=None, repr=False)
    public_key: str | None = None
    issuer: str | None = None
    audience: str | None = None
    internal_tokens: Sequence[tuple[bytes, int | None]] = field(default=(), repr=False)
    """(SHA-256 of the token, end of its validity in ms since 1970 or None) of each service that may call."""


class KeySet(Protocol):
    """Keys that are fetched from elsewhere and rotated there."""

    def find(self, key_id: str | None) -> tuple[str, Any] | None:
        """(algorithm, key). Raises Unavailable while they are being fetched."""


class TokenVerifier:
    """Limits: TOKENS_CACHED_MAX, TOKEN_CACHED_S_MAX. Raises Refused UNAUTHORIZED for whatever is not accepted.

    `keys`: where tokens are verified by a key set (JWT_JWKS_URL); then no other key is.
    """

    def __init__(self, rules: TokenRules, clock: Clock, keys: KeySet | None = None) -> None:
        self._rules = rules
        self._clock = clock
        self._keys = keys
        self._algorithm, self._key = _pinned(rules)
        self._options: Any = {
            "require": ["exp"],
            "verify_signature": True,
            "verify_aud": rules.audience is not None,
            "verify_iss": rules.issuer is not None,
            # Times are checked below on our Clock, without tolerance for `exp`. `iat` says nothing about validity.
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_sub": False,
            "verify_jti": False,
        }
        self._seen: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    @property
    def takes_internal(self) -> bool:
        return bool(self._rules.internal_tokens)

    def bearer(self, token: str) -> Caller:
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            raise unauthorized()
        # The hash, so that no list of valid tokens lies in memory.
        digest = hashlib.sha256(token.encode()).digest()
        now_s = self._clock.now_ms() / 1000
        seen = self._seen.get(digest)
        if seen is not None:
            if now_s < seen[0]:
                self._seen.move_to_end(digest)
                return seen[1]
            del self._seen[digest]
        caller, expires_at_s = self._verified(token, now_s)
        self._seen[digest] = (min(expires_at_s, now_s + TOKEN_CACHED_S_MAX), caller)
        if len(self._seen) > TOKENS_CACHED_MAX:
            self._seen.popitem(last=False)
        return caller

    def bearer_until(self, token: str) -> tuple[Caller, float]:
        """And when the token ends, in seconds since 1970: for what is made of it and must not live longer. Verified
        anew at each call."""
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            raise unauthorized()
        return self._verified(token, self._clock.now_ms() / 1000)

    def internal(self, token: str) -> Caller:
        """Every entry is compared, in constant time: how long it takes tells nothing."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        now_ms = self._clock.now_ms()
        accepted = False
        for expected, expires_at_ms in self._rules.internal_tokens:
            same = hmac.compare_digest(digest, expected)
            accepted |= same and (expires_at_ms is None or now_ms < expires_at_ms)
        if not accepted:
            raise unauthorized()
        return SERVICE

    def _verified(self, token: str, now_s: float) -> tuple[Caller, float]:
        algorithm, key = (self._algorithm, self._key) if self._keys is None else self._found(token, self._keys)
        if key is None:
            raise unauthorized()
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=[algorithm], options=self._options,
                audience=self._rules.audience, issuer=self._rules.issuer,
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, RecursionError):
            # The last two: what the JSON reader makes of numbers and nesting nobody sends in earnest.
            raise unauthorized() from None
        expires_at_s = _moment(claims["exp"])
        if now_s >= expires_at_s or ("nbf" in claims and now_s < _moment(claims["nbf"])):
            raise unauthorized()
        return Caller(_user_of(claims), _roles_of(claims.get("roles"))), expires_at_s

    def _found(self, token: str, keys: KeySet) -> tuple[str, Any]:
        """Of the token's header its key id alone is believed: it only chooses among keys that are ours."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise unauthorized() from None
        found = keys.find(key_id if isinstance(key_id, str) else None)
        if found is None:
            raise unauthorized()
        return found


def unauthorized() -> Refused:
    """The same for every reason: which check failed is nobody's business."""
    return Refused("a valid token is needed", code="UNAUTHORIZED")


def _pinned(rules: TokenRules) -> tuple[str, Any]:
    """The one algorithm and its key. Raises ValueError, without the key in its text, when the key cannot be used."""
    if rules.public_key is not None:
        # An environment holds a PEM in one line, with \n written out.
        key = load_pem_public_key(rules.public_key.replace("\\n", "\n").encode())
        if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
            return "RS256", key
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            return "ES256", key
        raise ValueError(f"JWT_PUBLIC_KEY must be RSA of at least {RSA_BITS_MIN} bits, or EC on P-256")
    if rules.secret is not None and len(rules.secret) < SECRET_LENGTH_MIN:
        raise ValueError(f"JWT_SECRET must have at least {SECRET_LENGTH_MIN} characters")
    return "HS256", rules.secret


def _moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise unauthorized()
    return float(value)


def _user_of(claims: dict[str, Any]) -> str:
    user = claims["sub"] if claims.get("sub") is not None else claims.get("userId")
    if not isinstance(user, str) or not 0 < len(user) <= USER_ID_LENGTH_MAX or not user.isprintable():
        raise unauthorized()
    return user


def _roles_of(value: object) -> frozenset[str]:
    """A list of words, or one text of words with spaces between. Anything else is no role at all."""
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(word for word in words[:ROLES_MAX] if isinstance(word, str))


def issue_token(rules: TokenRules, user_id: str, roles: Sequence[str], *, now_ms: int, valid_s: int = ISSUED_S) -> str:
    """A token that this service accepts, for development and tests.

    Raises ValueError when tokens are verified with a public key: whoever holds the private one issues them.
    """
    if rules.public_key is not None or rules.secret is None:
        raise ValueError("tokens are only issued where JWT_SECRET verifies them")
    now_s = now_ms // 1000
    claims: dict[str, Any] = {"sub": user_id, "roles": list(roles), "iat": now_s, "exp": now_s + valid_s}
    if rules.issuer is not None:
        claims["iss"] = rules.issuer
    if rules.audience is not None:
        claims["aud"] = rules.audience
    return jwt.encode(claims, rules.secret, algorithm="HS256")
