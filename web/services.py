"""What the web needs of the rest, in one value that app.py makes.

Room: web. Protocols, callables and plain values only: nothing of adapters/ comes in.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from aiohttp import web

from payment_service.core.audit import AuditEntry
from payment_service.core.idempotency import KeptAnswers
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Clock, Metrics
from payment_service.core.use_cases.payment_methods import MethodRequests
from payment_service.core.use_cases.payment_requests import Caller, PaymentRequests
from payment_service.web.client_address import Network
from payment_service.web.console.parts import Console
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.tokens import TokenVerifier
from payment_service.web.webhook_gate import WebhookGate

BODY_BYTES_MAX = 262_144
"""The largest body that is read. Providers' events are the largest that come; ours are below 16 KB."""
BODY_TIMEOUT_S = 15.0
"""The whole body is here by then, or the request ends: a slow sender holds a connection, never a worker."""

RATE_LIMIT_MAX, RATE_LIMIT_WINDOW_S = 1_000_000, 900.0
"""Where nobody says otherwise; the settings have the contract's."""


class RequestSpan(Protocol):
    """One request in a trace."""

    @property
    def trace_id(self) -> str: ...

    def end(self, status: int, **ids: str) -> None: ...


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
    webhooks: WebhookGate
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
    trace: Callable[[str, str, Mapping[str, str]], RequestSpan] | None = None
    """Begins a span, by method, route and headers. None: no traces are collected."""
    console: Console | None = None
    """None: there is none here."""
    body_bytes_max: int = BODY_BYTES_MAX
    body_timeout_s: float = BODY_TIMEOUT_S


class About(NamedTuple):
    """What a request is about, where its path does not say it; told by the page, for the audit log."""

    payment_id: str = ""
    order_id: str = ""
    refund_id: str = ""
    method_id: str = ""
    detail: str = ""
    """An operator's reason, or what it was about that has no id here."""


NOTHING = About()
OUR_PAYMENT = re.compile(r"pay_[0-9a-f]{32}", re.ASCII)
NO_ROUTE = "none"
"""Of a request that no page is registered for: metrics must not have a label per guessed path."""


@dataclass(slots=True)
class Asked:
    """What is known of one request. One value, handed to every behaviour: aiohttp's own keys cost a call each, and an
    exception where one is missing."""

    route: str = NO_ROUTE
    """The registered path, such as `/api/v1/payments/{payment_id}`."""
    started_s: float = 0.0
    request_id: str = ""
    caller: Caller | None = None
    """Set by middleware/auth.py on every route that is not open."""
    about: About = NOTHING
    error_code: str = ""
    """The contract's word for a failure; empty without one."""
    limit: tuple[str, str] | None = None
    """The fields RateLimit and RateLimit-Policy."""
    span: RequestSpan | None = None

    def payment_id(self, request: web.Request) -> str:
        """Of the payment it is about, for logs and traces; empty for what cannot be one of ours: it may be anything
        that somebody wrote there."""
        about = self.about
        name = "" if self.route is NO_ROUTE else request.match_info.get("payment_id") or about.payment_id
        if not name and about.order_id and not self.error_code:
            name = payment_id_of(about.order_id)
        return name if OUR_PAYMENT.fullmatch(name) else ""


SERVICES = web.AppKey("services", WebServices)
ASKED = web.RequestKey("asked", Asked)
