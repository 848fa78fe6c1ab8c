"""The REST side as one aiohttp application: Faust blueprints on a Faust App that is never started.

Room: web. worker.py serves the result with its own AppRunner, so that REST lives on when the stream side is away
(design §6, §8).
"""

import faust
from aiohttp import web
from faust.web import Blueprint
from faust.web.base import BlueprintManager

from payment_service.web.console.all_pages import console_pages
from payment_service.web.docs import api_docs
from payment_service.web.health import probes
from payment_service.web.middleware import build_middlewares
from payment_service.web.mock_approval import mock_approval
from payment_service.web.payment_methods import payment_methods
from payment_service.web.payments import payments
from payment_service.web.refunds import refunds
from payment_service.web.services import SERVICES, WebServices
from payment_service.web.table_rows import table_rows
from payment_service.web.webhooks import webhooks

BLUEPRINTS: tuple[Blueprint, ...] = (
    payments, refunds, payment_methods, probes, table_rows, mock_approval, webhooks, api_docs,
)  # fmt: skip
"""Looked through in this order."""
SERVED = (*BLUEPRINTS, console_pages)
"""With what is for people at a browser."""


def build_site(services: WebServices) -> web.Application:
    """A new one at each call, ready to be served. Nothing runs and nothing is connected."""
    app = faust.App(
        "payment-service-web",
        autodiscover=False,
        # Faust's own pages show tables and routing to anybody.
        web_tables_enabled=False,
        web_router_enabled=False,
        web_application_options={
            "middlewares": build_middlewares(services, open_routes(SERVED)),
            "client_max_size": services.body_bytes_max,
        },
    )
    # Only ours: Faust would also put its index at "/".
    app.web.blueprints = BlueprintManager([(blueprint.url_prefix or "", blueprint) for blueprint in SERVED])
    site: web.Application = app.web.web_app  # type: ignore[attr-defined]
    site[SERVICES] = services
    app.web.init_server()
    return site


def open_routes(blueprints: tuple[Blueprint, ...]) -> frozenset[str]:
    """The paths, as they are registered, that ask for no token."""
    return frozenset(
        (blueprint.url_prefix or "") + route.uri
        for blueprint in blueprints
        for route in blueprint.routes
        if getattr(route.handler, "open_to_all", False)
    )
