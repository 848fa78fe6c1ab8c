"""The API's description for people: Swagger UI from an installed package, no CDN; and openapi.yaml itself.

Room: web. The page runs scripts of its own origin alone (Content-Security-Policy); nothing on it is inline.
"""

from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from aiohttp import hdrs, web
from faust.web import Blueprint

from payment_service.core.errors import Refused
from payment_service.web.endpoint import Endpoint

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles on its elements; everything else comes from files."""
CACHE_S = 3600

_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Payment service</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/api-docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="/api-docs/swagger-ui-bundle.js"></script>
<script src="/api-docs/start.js"></script>
</body>
</html>
"""
_START = b"""window.ui = SwaggerUIBundle({
  url: "/api-docs/openapi.yaml", dom_id: "#docs", deepLinking: true, validatorUrl: null,
});
"""
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_FROM_PACKAGE = ("swagger-ui-bundle.js", "swagger-ui.css")

api_docs = Blueprint("api_docs")


@cache
def _asset(name: str) -> bytes:
    if name == "start.js":
        return _START
    found = find_spec("swagger_ui")
    if name not in _FROM_PACKAGE or found is None or found.origin is None:
        raise Refused("no such page", code="NOT_FOUND")
    return (Path(found.origin).parent / "static" / name).read_bytes()


@cache
def _document() -> bytes:
    """The file of the package, which api_document.py wrote: making it here would hold up every payment for seconds."""
    return files("payment_service").joinpath("openapi.yaml").read_bytes()


@api_docs.route("/api-docs", name="page")
class Page(Endpoint):
    open_to_all = True

    async def get(self, request: web.Request) -> web.Response:
        headers = {hdrs.CONTENT_TYPE: "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
        return web.Response(body=_PAGE, headers=headers)


@api_docs.route("/api-docs/", name="page_too")
class PageToo(Page):
    """As it is typed."""


@api_docs.route("/api-docs/openapi.yaml", name="document")
class Document(Endpoint):
    open_to_all = True

    async def get(self, request: web.Request) -> web.Response:
        return web.Response(body=_document(), headers={hdrs.CONTENT_TYPE: "application/yaml; charset=utf-8"})


@api_docs.route("/api-docs/{name}", name="asset")
class Asset(Endpoint):
    open_to_all = True

    async def get(self, request: web.Request, name: str) -> web.Response:
        body = _asset(name)
        headers = {hdrs.CONTENT_TYPE: _TYPES[Path(name).suffix], hdrs.CACHE_CONTROL: f"public, max-age={CACHE_S}"}
        return web.Response(body=body, headers=headers)
