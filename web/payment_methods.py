"""Saved ways to pay: parse -> use case -> render.

Room: web. They belong to the user of the token; another service has none.
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.codecs.methods import method_view
from payment_service.core.errors import Refused
from payment_service.core.payment_method import MethodStatus
from payment_service.core.use_cases.payment_methods import MethodRequests, ShownMethod
from payment_service.web.bodies import read_body
from payment_service.web.endpoint import PAYMENT_ID_LENGTH_MAX, Endpoint, caller_of
from payment_service.web.envelope import failure, success
from payment_service.web.idempotency import answer_same
from payment_service.web.method_bodies import MethodBody
from payment_service.web.services import ASKED, About, WebServices

payment_methods = Blueprint("payment_methods", url_prefix="/api/v1")


def _methods(services: WebServices) -> MethodRequests:
    if services.methods is None:
        raise Refused("no payment methods are kept here", code="PROVIDER_NOT_CONFIGURED")
    return services.methods


def _method_id(text: str) -> str:
    """Out of a path. What cannot be an id of ours is not found; the database is not asked about it."""
    if len(text) > PAYMENT_ID_LENGTH_MAX or not text.isprintable():
        raise Refused("no such payment method", code="NOT_FOUND")
    return text


def _status(shown: ShownMethod, *, created: bool) -> int:
    if shown.method.status is MethodStatus.PENDING:
        return 202
    return 201 if created else 200


@payment_methods.route("/payment-methods", name="payment_methods")
class PaymentMethods(Endpoint):
    async def post(self, request: web.Request) -> web.Response:
        body = await read_body(request, self.services, MethodBody)
        # One token makes one method, however often it is sent.
        return await answer_same(request, self.services, lambda: self._save(request, body))

    async def _save(self, request: web.Request, body: MethodBody) -> web.Response:
        saved = await _methods(self.services).save(
            caller_of(request),
            type=body.type,
            provider=body.provider,
            token=body.token,
            is_default=bool(body.is_default),
            return_url=body.return_url,
        )
        declined, shown = saved.declined, saved.shown
        if shown is None:
            assert declined is not None
            return failure(
                request,
                self.services.clock.now_ms(),
                402,
                "CARD_DECLINED",
                declined.message or "the provider does not take it",
                extra={"declineCode": declined.decline_code},
            )
        request[ASKED].about = About(method_id=shown.method.method_id)
        return success(method_view(shown.method, shown.next_action), _status(shown, created=saved.created))

    async def get(self, request: web.Request) -> web.Response:
        listed = await _methods(self.services).listed(caller_of(request))
        return success([method_view(shown.method, shown.next_action) for shown in listed])


@payment_methods.route("/payment-methods/{method_id}", name="payment_method")
class OneMethod(Endpoint):
    async def delete(self, request: web.Request, method_id: str) -> web.Response:
        method_id = _method_id(method_id)
        await _methods(self.services).remove(caller_of(request), method_id)
        return success({"id": method_id, "deleted": True})


@payment_methods.route("/payment-methods/{method_id}/default", name="default_method")
class DefaultMethod(Endpoint):
    async def put(self, request: web.Request, method_id: str) -> web.Response:
        method = await _methods(self.services).make_default(caller_of(request), _method_id(method_id))
        return success(method_view(method))
