"""What the web needs of the rest, in one value that app.py makes.

Room: web. Protocols, callables and plain values only: nothing of adapters/ comes in.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from payment_service.core.ports import Clock, Metrics
from payment_service.core.use_cases.payment_requests import Caller, PaymentRequests
from payment_service.web.tokens import TokenVerifier

BODY_BYTES_MAX = 262_144
"""The largest body that is read. Providers' events are the largest that come; ours are below 16 KB."""
BODY_TIMEOUT_S = 15.0
"""The whole body is here by then, or the request ends: a slow sender holds a connection, never a worker."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`ready` is about REST alone; broker, recovery, lag and providers are in `details` (design §8)."""

    ready: bool
    draining: bool = False
    reasons: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WebServices:
    requests: PaymentRequests
    tokens: TokenVerifier
    readiness: Callable[[], Awaitable[Readiness]]
    metrics_text: Callable[[], bytes]
    """The exposition format of Prometheus."""
    clock: Clock
    metrics: Metrics
    metrics_token: str | None = field(default=None, repr=False)
    """METRICS_TOKEN: when set, GET /metrics wants it as bearer."""
    approve_mock: Callable[[str], bool] | None = None
    """The mock provider's page: approves one of its objects, if it waits for that. None: there is no mock."""
    table_row: Callable[[str], Mapping[str, Any] | None] = lambda payment_id: None
    """What the table `payments` holds, if this worker has the payment's partition."""
    body_bytes_max: int = BODY_BYTES_MAX
    body_timeout_s: float = BODY_TIMEOUT_S


SERVICES = web.AppKey("services", WebServices)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
"""Set by middleware/auth.py on every route that is not open."""
ERROR_CODE = web.RequestKey("error_code", str)
"""The contract's word for a failure, for the access log."""
