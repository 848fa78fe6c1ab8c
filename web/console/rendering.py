"""Values -> a page. Everything that is put into one is escaped by Jinja; no template turns that off.

Room: web. A page runs no script but ours, from a file, and has no inline style (Content-Security-Policy).
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from payment_service.codecs.times import rfc3339
from payment_service.core.card_data import without_card_data
from payment_service.core.errors import PaymentError
from payment_service.core.money import EXPONENTS, to_decimal_text
from payment_service.core.payment import status_of
from payment_service.web.console import words

FOLDER = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not no-referrer: then a browser says "Origin: null" of our own forms.
    "Referrer-Policy": "same-origin",
}
ASSETS = {"console.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8",
          "icon.svg": "image/svg+xml"}  # fmt: skip
VALUE_LENGTH_MAX = 2000
"""Of what strangers wrote, on a page."""


def render(template: str, *, status: int = 200, **values: Any) -> web.Response:
    text = _environment().get_template(template).render(values)
    return web.Response(text=text, status=status, headers=HEADERS)


@cache
def asset(name: str) -> bytes:
    return (FOLDER / "static" / name).read_bytes()


@cache
def asset_address(name: str) -> str:
    """Another one for every other content, so that a browser may keep it for ever."""
    return f"/console/assets/{name}?v={hashlib.sha256(asset(name)).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    environment.filters |= {
        "money": money, "moment": moment, "plain": plain, "label": words.label, "tone": words.tone,
        "status": status_of, "event_words": words.event_words, "review_words": words.review_words,
        "person": words.person,
        "source_words": words.source_words, "problem_words": problem_words, "span": span,
    }  # fmt: skip
    environment.globals |= {"asset": asset_address}
    return environment


def money(amount_minor: int, currency: str) -> str:
    """With all decimals of the currency: `1,234.50 USD`."""
    if currency not in EXPONENTS:
        return f"{amount_minor} {currency}"
    whole, point, decimals = to_decimal_text(amount_minor, currency).partition(".")
    return f"{int(whole):,}{point}{decimals} {currency}"


def problem_words(error: PaymentError) -> str:
    """Without the names of fields, which are not those on the page."""
    fields = getattr(error, "fields", None) or {}
    reasons = [reason for one in fields.values() for reason in one]
    return "; ".join(reasons) if reasons else error.message


def span(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "–"
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def moment(at: int | str | None) -> str:
    """Milliseconds since 1970, or RFC 3339 -> `2026-11-24 10:00:00`, UTC."""
    if at is None:
        return "–"
    text = rfc3339(at) if isinstance(at, int) else at
    return text.replace("T", " ").removesuffix("Z").partition(".")[0]


def plain(value: Any) -> str:
    """What somebody else wrote, without card data, and not endless."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    shown = without_card_data(text[:VALUE_LENGTH_MAX])
    return shown + "…" if len(text) > VALUE_LENGTH_MAX else shown
