"""Refunds by payment id in the body: what the return service calls.

Room: web.
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.codecs.rest import refund_view
from payment_service.web.bodies import RefundOfBody, read_body
from payment_service.web.endpoint import Endpoint, caller_of
from payment_service.web.envelope import success

refunds = Blueprint("refunds", url_prefix="/api/v1")


@refunds.route("/refunds", name="refunds")
class Refunds(Endpoint):
    async def post(self, request: web.Request) -> web.Response:
        body = await read_body(request, self.services, RefundOfBody)
        answered = await self.services.requests.refund(
            caller_of(request), body.payment_id, amount=body.amount, reason=body.reason, metadata=body.metadata or {}
        )
        assert answered.refund is not None
        return success(refund_view(answered.payment, answered.refund))
