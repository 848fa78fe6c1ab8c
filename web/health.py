"""For probes and scrapers: is the process up, may it be given work, what does it count.

Room: web.
"""

import hmac

from aiohttp import hdrs, web
from faust.web import Blueprint

from payment_service.web.endpoint import Endpoint
from payment_service.web.envelope import failure, success
from payment_service.web.tokens import unauthorized

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

probes = Blueprint("probes")


@probes.route("/health", name="health")
class Health(Endpoint):
    open_to_all = True

    async def get(self, request: web.Request) -> web.Response:
        return success({"status": "UP", "service": "payment-service"})


@probes.route("/ready", name="ready")
class Ready(Endpoint):
    open_to_all = True

    async def get(self, request: web.Request) -> web.Response:
        now = await self.services.readiness()
        data = {"ready": now.ready, "draining": now.draining, "reasons": now.reasons, **now.details}
        if now.ready:
            return success(data)
        message = "; ".join(now.reasons) or "not ready"
        at_ms = self.services.clock.now_ms()
        return failure(request, at_ms, 503, "SERVICE_UNAVAILABLE", message, extra={"data": data})


@probes.route("/metrics", name="metrics")
class MetricsText(Endpoint):
    open_to_all = True
    """Its token is not a user's: METRICS_TOKEN, or none."""

    async def get(self, request: web.Request) -> web.Response:
        wanted = self.services.metrics_token
        if wanted is not None:
            given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, f"Bearer {wanted}".encode()):
                raise unauthorized()
        return web.Response(body=self.services.metrics_text(), headers={hdrs.CONTENT_TYPE: METRICS_CONTENT_TYPE})
