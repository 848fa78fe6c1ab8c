"""Who tried what: every change that is asked for and every read that is denied, into the audit log.

Room: web. After the answer is made, so that its code is known, and without waiting: the log takes it from there. Of a
request only ids are kept, never a body, a header or a query string.
"""

from aiohttp import web

from payment_service.core.audit import ACCEPTED, OK, AuditEntry
from payment_service.core.card_data import without_card_data_in_path
from payment_service.web.client_address import client_address
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import NO_ROUTE, Asked, WebServices

ACTIONS = {
    ("POST", "/api/v1/payments"): "payment.create",
    ("POST", "/api/v1/payments/{payment_id}/process"): "payment.process",
    ("POST", "/api/v1/payments/{payment_id}/capture"): "payment.capture",
    ("POST", "/api/v1/payments/{payment_id}/cancel"): "payment.cancel",
    ("POST", "/api/v1/payments/{payment_id}/refund"): "payment.refund",
    ("POST", "/api/v1/refunds"): "payment.refund",
    ("GET", "/api/v1/payments"): "payment.list",
    ("GET", "/api/v1/payments/{payment_id}"): "payment.read",
    ("GET", "/api/v1/payments/{payment_id}/timeline"): "payment.read",
    ("GET", "/api/v1/orders/{order_id}/payment"): "payment.read",
    ("POST", "/api/v1/webhooks"): "webhook.receive",
    ("POST", "/api/v1/webhooks/{provider}"): "webhook.receive",
    ("POST", "/api/v1/payment-methods"): "method.add",
    ("DELETE", "/api/v1/payment-methods/{method_id}"): "method.remove",
    ("PUT", "/api/v1/payment-methods/{method_id}/default"): "method.default",
    ("POST", "/console/sign-in"): "console.sign_in",
    ("POST", "/console/sign-out"): "console.sign_out",
    ("GET", "/console/payments/{payment_id}"): "payment.read",
    ("POST", "/console/payments/{payment_id}/ask"): "payment.read",
    ("POST", "/console/payments/{payment_id}/refund"): "payment.refund",
    ("POST", "/console/payments/{payment_id}/cancel"): "payment.cancel",
    ("POST", "/console/payments/{payment_id}/resolve"): "payment.resolve",
    ("POST", "/console/dead-letters/replay"): "dead_letter.replay",
    ("POST", "/console/webhooks/replay"): "webhook.replay",
}
"""Any other route is its own word."""
READS = frozenset({"GET", "HEAD", "OPTIONS"})
DENIED = frozenset({"UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED", "PAYMENT_NOT_FOUND", "IP_NOT_ALLOWED"})
"""Of a read. Somebody else's payment is "not found"; whoever tries many of them should be seen."""
GONE = "GONE"
"""The caller went away before there was an answer; what was asked for may have been done."""


class Audit(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_ms = services.clock.now_ms
        self._record = services.audit
        self._trusted = services.trusted_proxies

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        code = asked.error_code
        if request.method in READS and code not in DENIED:
            return
        if asked.route is not NO_ROUTE:
            result = GONE if response is None else code or (ACCEPTED if response.status == 202 else OK)
            # Without a proxy of ours it is whom the connection is with, and nothing has to be parsed.
            client = client_address(request, self._trusted) if self._trusted else request.remote
            self._record(_entry(request, asked, result, self._now_ms(), str(client or "")))


def _entry(request: web.Request, asked: Asked, result: str, at_ms: int, client: str) -> AuditEntry:
    method = request.method
    caller, about = asked.caller, asked.about
    path = request.match_info
    payment_id, method_id = path.get("payment_id"), path.get("method_id")
    if asked.error_code:  # it may be anything that somebody wrote there
        payment_id, method_id = (without_card_data_in_path(one) if one else one for one in (payment_id, method_id))
    return AuditEntry(
        at_ms,
        ACTIONS.get((method, asked.route)) or f"{method} {asked.route}",
        result,
        caller.by if caller is not None else "anonymous",
        caller.roles if caller is not None else (),
        client,
        asked.request_id,
        payment_id or about.payment_id,
        path.get("order_id") or about.order_id,
        about.refund_id,
        method_id or about.method_id or about.detail,
    )
