"""Payments: parse -> use case -> render.

Room: web. No rule of payments is here; who may do what is decided by PaymentRequests.
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.codecs.published import refund_id
from payment_service.codecs.rest import page_view, payment_view, payment_with_history_view, refund_view, timeline_view
from payment_service.core.use_cases.payment_requests import Answered
from payment_service.web.bodies import (
    CancelBody,
    CaptureBody,
    CreateBody,
    ProcessBody,
    RefundBody,
    read_body,
    read_flag,
    read_list_query,
)
from payment_service.web.endpoint import ORDER_ID_LENGTH_MAX, Endpoint, caller_of, path_id
from payment_service.web.envelope import failure, success
from payment_service.web.idempotency import answer_once
from payment_service.web.middleware.auth import with_bearer
from payment_service.web.services import ASKED, About, WebServices

DEFAULT_CURRENCY = "USD"

payments = Blueprint("payments", url_prefix="/api/v1")


def _shown(answered: Answered, status: int = 200) -> web.Response:
    return success(payment_view(answered.payment, answered.next_action), status)


def _outcome(request: web.Request, services: WebServices, answered: Answered) -> web.Response:
    """Of a call to the provider: 200 only when it said yes, or when the shopper has to act."""
    declined = answered.declined
    if declined is None:
        return _shown(answered, 202 if answered.pending else 200)
    return failure(
        request,
        services.clock.now_ms(),
        402,
        "CARD_DECLINED",
        declined.message or "the payment was declined",
        extra={"declineCode": declined.decline_code},
    )


@payments.route("/payments", name="payments")
class Payments(Endpoint):
    async def post(self, request: web.Request) -> web.Response:
        body = await read_body(request, self.services, CreateBody)
        request[ASKED].about = About(order_id=body.order_id)
        return await answer_once(
            request,
            self.services,
            lambda caller: self.services.requests.create(
                with_bearer(request, caller) if self.services.forwards_bearer else caller,
                order_id=body.order_id,
                amount=body.amount,
                currency=DEFAULT_CURRENCY if body.currency is None else body.currency,
                provider=body.provider,
                method=body.payment_method_id,
                capture_method=body.captured_by(),
                description=body.description,
                metadata=body.metadata or {},
            ),
            lambda answered: _shown(answered, 201 if answered.created else 202 if answered.pending else 200),
        )

    async def get(self, request: web.Request) -> web.Response:
        query = read_list_query(request.query)
        page = await self.services.requests.find(caller_of(request), query)
        return success(page_view(page, query))


@payments.route("/payments/{payment_id}", name="payment")
class OnePayment(Endpoint):
    async def get(self, request: web.Request, payment_id: str) -> web.Response:
        sync = read_flag(request.query, "sync")
        answered = await self.services.requests.get(caller_of(request), path_id(payment_id), sync=sync)
        return success(payment_with_history_view(answered.payment, answered.next_action))


@payments.route("/payments/{payment_id}/timeline", name="timeline")
class Timeline(Endpoint):
    async def get(self, request: web.Request, payment_id: str) -> web.Response:
        stored = await self.services.requests.timeline(caller_of(request), path_id(payment_id))
        return success([timeline_view(event) for event in stored])


@payments.route("/payments/{payment_id}/process", name="process")
class Process(Endpoint):
    async def post(self, request: web.Request, payment_id: str) -> web.Response:
        payment_id = path_id(payment_id)
        body = await read_body(request, self.services, ProcessBody)
        return await answer_once(
            request,
            self.services,
            lambda caller: self.services.requests.process(
                caller,
                payment_id,
                method=body.payment_method_id,
                return_url=body.return_url,
                object_id=body.payment_intent_id,
            ),
            lambda answered: _outcome(request, self.services, answered),
        )


@payments.route("/payments/{payment_id}/capture", name="capture")
class Capture(Endpoint):
    async def post(self, request: web.Request, payment_id: str) -> web.Response:
        payment_id = path_id(payment_id)
        body = await read_body(request, self.services, CaptureBody)
        return await answer_once(
            request,
            self.services,
            lambda caller: self.services.requests.capture(caller, payment_id, amount=body.amount),
            lambda answered: _outcome(request, self.services, answered),
        )


@payments.route("/payments/{payment_id}/cancel", name="cancel")
class Cancel(Endpoint):
    async def post(self, request: web.Request, payment_id: str) -> web.Response:
        payment_id = path_id(payment_id)
        body = await read_body(request, self.services, CancelBody)
        return await answer_once(
            request,
            self.services,
            lambda caller: self.services.requests.cancel(caller, payment_id, reason=body.reason),
            _shown,
        )


@payments.route("/payments/{payment_id}/refund", name="refund")
class RefundPayment(Endpoint):
    async def post(self, request: web.Request, payment_id: str) -> web.Response:
        payment_id = path_id(payment_id)
        body = await read_body(request, self.services, RefundBody)

        def show(answered: Answered) -> web.Response:
            assert answered.refund is not None
            request[ASKED].about = About(refund_id=refund_id(payment_id, answered.refund.number))
            refund = refund_view(answered.payment, answered.refund)
            return success({"refund": refund, "payment": payment_view(answered.payment, answered.next_action)})

        return await answer_once(
            request,
            self.services,
            lambda caller: self.services.requests.refund(
                caller, payment_id, amount=body.amount, reason=body.reason, metadata=body.metadata or {}
            ),
            show,
        )


@payments.route("/orders/{order_id}/payment", name="by_order")
class PaymentOfOrder(Endpoint):
    async def get(self, request: web.Request, order_id: str) -> web.Response:
        answered = await self.services.requests.by_order(caller_of(request), path_id(order_id, ORDER_ID_LENGTH_MAX))
        return success(payment_with_history_view(answered.payment, answered.next_action))
