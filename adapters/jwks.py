"""The key set that verifies users' tokens (JWT_JWKS_URL, RFC 7517): fetched beforehand, kept, rotated.

Room: adapters. A request never waits for the fetch: a key that is not known wakes it, and the caller is asked to come
again (503) until it has been looked for. While the address is away the last keys stay good.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
import structlog
from aiohttp import ClientError, ClientTimeout
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from payment_service.adapters.providers.registration import Sessions
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Clock

REFRESH_S = 300.0
"""A key that was withdrawn is believed no longer than this after that."""
COOL_DOWN_S = 30.0
"""Between two fetches for unknown keys: whoever invents key ids causes no more than that."""
FETCH_S = 5.0
BYTES_MAX = 262_144
KEYS_MAX = 100
RSA_BITS_MIN = 2048

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class JwksKeys:
    """(algorithm, key) by key id."""

    url: str
    sessions: Sessions
    clock: Clock
    _keys: Mapping[str, tuple[str, Any]] | None = None
    _tried_at_s: float = float("-inf")
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, key_id: str | None) -> tuple[str, Any] | None:
        """None: there is no such key; without an id, the only one there is.

        Raises: Unavailable when the keys are not here yet, or are being looked for anew because of this id.
        """
        keys = self._keys
        if keys is not None:
            if key_id is None:
                return next(iter(keys.values())) if len(keys) == 1 else None
            found = keys.get(key_id)
            if found is not None:
                return found
            if self.clock.monotonic_s() - self._tried_at_s < COOL_DOWN_S:
                return None
        self._wake.set()
        raise Unavailable("the keys that verify tokens are being fetched", retry_after_s=1.0)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._wake.clear()
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):  # wait_for may swallow a cancellation
                    await self._wake.wait()
            left_s = self._tried_at_s + COOL_DOWN_S - self.clock.monotonic_s()
            if self._keys is not None and left_s > 0:
                await asyncio.sleep(left_s)
            elif self._keys is None:
                await asyncio.sleep(1.0)

    async def refresh(self) -> None:
        """Fetch now; what cannot be fetched or read leaves the keys as they were."""
        self._tried_at_s = self.clock.monotonic_s()
        try:
            timeout = ClientTimeout(total=FETCH_S)
            async with self.sessions().get(self.url, timeout=timeout, allow_redirects=False) as answer:
                body = await answer.content.read(BYTES_MAX + 1)
                if answer.status != 200 or len(body) > BYTES_MAX:
                    raise ValueError(f"answered {answer.status}, {len(body)} bytes")
            self._keys = _usable(orjson.loads(body))
        except (ClientError, TimeoutError, OSError, ValueError, TypeError, KeyError) as error:
            _log.error("the key set cannot be fetched", error=type(error).__name__, kept=len(self._keys or ()))


def _usable(document: Any) -> dict[str, tuple[str, Any]]:
    """RS256 keys of at least 2048 bits and ES256 keys; whatever else is in the set is passed over. The algorithm is
    the key's, never the token's.

    Raises: ValueError, KeyError, TypeError for what is no key set, or has no usable key.
    """
    keys: dict[str, tuple[str, Any]] = {}
    for place, entry in enumerate(document["keys"][:KEYS_MAX]):
        if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC"):
            continue
        try:
            key = jwt.PyJWK.from_dict(entry).key
        except jwt.PyJWTError:
            continue
        name = str(entry.get("kid", place))
        if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
            keys[name] = ("RS256", key)
        elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            keys[name] = ("ES256", key)
    if not keys:
        raise ValueError("no usable key")
    return keys
