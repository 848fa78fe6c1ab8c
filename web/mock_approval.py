"""Where the mock provider's `nextAction.url` leads: the shopper says yes by opening it (contract §7).

Room: web. Only there when the mock is configured, which production refuses.
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.core.errors import Refused
from payment_service.web.endpoint import Endpoint, path_id
from payment_service.web.envelope import success

mock_approval = Blueprint("mock_approval", url_prefix="/mock")


@mock_approval.route("/approve/{object_id}", name="approve")
class Approve(Endpoint):
    open_to_all = True
    """The shopper's browser has no token here, as it has none at a bank's page."""

    async def get(self, request: web.Request, object_id: str) -> web.Response:
        approve = self.services.approve_mock
        if approve is None or not approve(path_id(object_id)):
            raise Refused("nothing waits for an approval here", code="NOT_FOUND")
        return success({"approved": True})
