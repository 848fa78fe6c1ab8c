"""What the web needs of the rest, in one value that app.py makes.

Room: web. Protocols, callables and plain values only: nothing of adapters/ comes in.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web

from payment_service.core.audit import AuditEntry
from payment_service.core.idempotency import KeptAnswers
from payment_service.core.ports import Clock, Metrics
from payment_service.core.use_cases.payment_methods import MethodRequests
from payment_service.core.use_cases.payment_requests import Caller, PaymentRequests
from payment_service.web.client_address import Network
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.tokens import TokenVerifier
from payment_service.web.webhook_gate import WebhookGate

BODY_BYTES_MAX = 262_144
"""The largest body that is read. Providers' events are the largest that come; ours are below 16 KB."""
BODY_TIMEOUT_S = 15.0
"""The whole body is here by then, or the request ends: a slow sender holds a connection, never a worker."""

RATE_LIMIT_MAX, RATE_LIMIT_WINDOW_S = 1_000_000, 900.0
"""Where nobody says otherwise; the settings have the contract's."""


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
    audit: Callable[[AuditEntry], None] = lambda entry: None
    """The audit log's `record`."""
    keys: KeptAnswers | None = None
    """The answers under Idempotency-Keys. None: no request carries one."""
    forwards_bearer: bool = False
    """Another service is asked with the user's own token, which a page then hands on."""
    webhooks: WebhookGate | None = None
    """None: no webhooks are taken."""
    methods: MethodRequests | None = None
    """None: no methods of payment are kept."""
    trusted_proxies: Sequence[Network] = ()
    """Whose word on the caller's address and scheme is believed."""
    https_only: bool = False
    allowed_origins: frozenset[str] = frozenset()
    rate_limit_max: int = RATE_LIMIT_MAX
    rate_limit_window_s: float = RATE_LIMIT_WINDOW_S
    make_windows: Callable[[Quota], Windows] = Windows
    """What counts callers: each worker for itself, or all together."""
    body_bytes_max: int = BODY_BYTES_MAX
    body_timeout_s: float = BODY_TIMEOUT_S


class About(NamedTuple):
    """What a request is about, where its path does not say it; told by the page, for the audit log."""

    payment_id: str = ""
    order_id: str = ""
    refund_id: str = ""
    method_id: str = ""


NOTHING = About()
SERVICES = web.AppKey("services", WebServices)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
"""Set by middleware/auth.py on every route that is not open."""
ABOUT = web.RequestKey("about", About)
ERROR_CODE = web.RequestKey("error_code", str)
"""The contract's word for a failure, for the access log."""
