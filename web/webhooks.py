"""`POST /api/v1/webhooks`: a provider's event, raw as it came. No token: the signature says who it is.

Room: web. 200 only when the event is durable; everything about it is found out later (core/use_cases).
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.core.errors import Refused
from payment_service.web.bodies import read_bytes
from payment_service.web.client_address import client_address
from payment_service.web.endpoint import Endpoint
from payment_service.web.envelope import success

SIGNED_BY = {
    "stripe-signature": "STRIPE",
    "paypal-transmission-id": "PAYPAL",
    "mock-signature": "MOCK",
}
"""The header that only this provider sends."""
PROVIDERS = frozenset(SIGNED_BY.values())

webhooks = Blueprint("webhooks", url_prefix="/api/v1")


class _Webhooks(Endpoint):
    open_to_all = True

    async def post(self, request: web.Request, provider: str = "") -> web.Response:
        gate, name = self.services.webhooks, provider.upper()
        if name and name not in PROVIDERS:
            raise Refused("there is nothing here", code="NOT_FOUND")
        address = client_address(request, gate.trusted)
        gate.check(address)
        headers = {header.lower(): value for header, value in request.headers.items()}
        signer = next((it for header, it in SIGNED_BY.items() if header in headers and name in ("", it)), None)
        if signer is None:
            gate.failed(address)
            raise Refused("no provider's signature", code="INVALID_SIGNATURE")
        body = await read_bytes(request, self.services)
        await gate.receive(signer, address, headers, body)
        return success({"received": True})


@webhooks.route("/webhooks", name="webhooks")
class AnyWebhooks(_Webhooks):
    """The provider is told by its headers."""


@webhooks.route("/webhooks/{provider}", name="webhooks_of")
class ProvidersWebhooks(_Webhooks):
    """The provider is told by the path."""
