"""Refunds by payment id in the body: what the return service calls.

Room: web.
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.codecs.published import refund_id
from payment_service.codecs.rest import refund_view
from payment_service.core.use_cases.payment_requests import Answered
from payment_service.web.bodies import RefundOfBody, read_body
from payment_service.web.endpoint import Endpoint
from payment_service.web.envelope import success
from payment_service.web.idempotency import answer_once
from payment_service.web.services import ASKED, About

refunds = Blueprint("refunds", url_prefix="/api/v1")


@refunds.route("/refunds", name="refunds")
class Refunds(Endpoint):
    async def post(self, request: web.Request) -> web.Response:
        body = await read_body(request, self.services, RefundOfBody)
        request[ASKED].about = About(body.payment_id)

        def show(answered: Answered) -> web.Response:
            assert answered.refund is not None
            request[ASKED].about = About(body.payment_id, refund_id=refund_id(body.payment_id, answered.refund.number))
            return success(refund_view(answered.payment, answered.refund))

        return await answer_once(
            request,
            self.services,
            lambda caller: self.services.requests.refund(
                caller, body.payment_id, amount=body.amount, reason=body.reason, metadata=body.metadata or {}
            ),
            show,
        )
