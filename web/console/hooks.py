"""Webhooks: what providers told us, what became of it, and once more.

Room: web.
"""

from aiohttp import web

from payment_service.core.errors import Refused, invalid_field
from payment_service.core.webhooks import WebhookStatus
from payment_service.web.console import words
from payment_service.web.console.pages import ConsolePage, console_pages, gone_to
from payment_service.web.console.parts import ADMIN
from payment_service.web.services import ASKED, About

SHOWN_MAX = 100
NUMBER_LENGTH_MAX = 18


def _number(text: str) -> int:
    """Raises Refused NOT_FOUND."""
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_LENGTH_MAX):
        raise Refused("there is no such webhook", code="NOT_FOUND")
    return int(text)


@console_pages.route("/console/webhooks", name="webhooks")
class Webhooks(ConsolePage):
    """Those that need somebody first: parked ones, unless another state is asked for."""

    async def get(self, request: web.Request) -> web.Response:
        session = self.session(request)
        word = request.query.get("status", WebhookStatus.PARKED.value).upper()
        status = word if word in WebhookStatus.__members__ else None
        rows = await self.console.webhooks.listed(status=status, limit=SHOWN_MAX)
        return self.shown(
            request, session, "webhooks.html", here="webhooks", rows=rows, chosen=status,
            statuses=list(WebhookStatus), full=len(rows) == SHOWN_MAX,
        )  # fmt: skip


@console_pages.route("/console/webhooks/{row_id}", name="webhook")
class OneWebhook(ConsolePage):
    async def get(self, request: web.Request, row_id: str) -> web.Response:
        session = self.session(request)
        rows = await self.console.webhooks.listed(row_id=_number(row_id), limit=1)
        if not rows:
            raise Refused("there is no such webhook", code="NOT_FOUND")
        return self.shown(
            request, session, "webhook.html", here="webhooks", row=rows[0], sentence=words.sentence(rows[0].status),
            done=request.query.get("done") == "replay",
        )  # fmt: skip


@console_pages.route("/console/webhooks/replay", name="replay_webhook")
class ReplayWebhook(ConsolePage):
    async def post(self, request: web.Request) -> web.Response:
        _, fields = await self.form(request, frozenset({ADMIN}), f"only the role {ADMIN} may apply webhooks again")
        text = fields.get("id", "")
        if not text:
            raise invalid_field("id", "say which webhook")
        row_id = _number(text)
        request[ASKED].about = About(detail=f"webhook {row_id}")
        if not await self.console.webhooks.replay(row_id=row_id):
            raise Refused("there is no such webhook", code="NOT_FOUND")
        return gone_to(f"/console/webhooks/{row_id}?done=replay")
