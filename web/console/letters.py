"""Dead letters: what could not be taken, and sending it again.

Room: web. The topic is read from its beginning each time, so only a few may do that at once, and not for long.
"""

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

from aiohttp import web

from payment_service.codecs.letters import outline, plain_text
from payment_service.core.dead_letters import LetterFilter, Replayed, Sent, checked_name
from payment_service.core.errors import Unavailable, invalid_field
from payment_service.web.console.pages import ConsolePage, console_pages
from payment_service.web.console.parts import ADMIN, Console
from payment_service.web.services import ASKED, About

SHOWN_MAX = 100
READ_S = 45.0
SEND_S = 100.0
FILTER_LENGTH_MAX = 249
"""Of a topic's name; reasons are shorter."""


async def _alone(console: Console, seconds: float, work: Any) -> Any:
    """Raises Unavailable: others are reading, or it took too long."""
    try:
        async with asyncio.timeout(seconds), console.reading_letters:
            return await work()
    except TimeoutError:
        raise Unavailable(
            "reading the dead letters takes too long here: payment-service dead-letters has all the time it needs"
        ) from None


def _filter(value: str) -> str | None:
    if len(value) > FILTER_LENGTH_MAX or not value.isprintable():
        raise invalid_field("reason", "there is no such reason")
    return value or None


@console_pages.route("/console/dead-letters", name="letters")
class Letters(ConsolePage):
    async def get(self, request: web.Request) -> web.Response:
        session = self.session(request)
        reason, topic = (_filter(request.query.get(name, "").strip()) for name in ("reason", "topic"))
        wanted = LetterFilter(topic, reason)
        page = await _alone(self.console, READ_S, lambda: self.console.letters.find(wanted, SHOWN_MAX))
        return self.shown(
            request, session, "letters.html", here="letters", page=page, letters=list(reversed(page.letters)),
            reason=reason, topic=topic,
        )  # fmt: skip


@console_pages.route("/console/dead-letters/letter", name="letter")
class OneLetter(ConsolePage):
    """Its id has a slash in it, so it is in the query."""

    async def get(self, request: web.Request) -> web.Response:
        session = self.session(request)
        name = checked_name(request.query.get("id", ""))
        letter = await _alone(self.console, READ_S, lambda: self.console.letters.get(name))
        value = outline(letter.value)
        return self.shown(
            request, session, "letter.html", here="letters", letter=letter, key=plain_text(letter.key),
            headers=[(header, plain_text(text)) for header, text in letter.headers], value=value, result=None,
        )  # fmt: skip


@console_pages.route("/console/dead-letters/replay", name="replay_letter")
class ReplayLetter(ConsolePage):
    async def post(self, request: web.Request) -> web.Response:
        """Answers with what became of it: sent once is sent once, so loading it again does no harm."""
        session, fields = await self.form(request, frozenset({ADMIN}), f"only the role {ADMIN} may send letters again")
        name = checked_name(fields.get("id", ""))
        request[ASKED].about = About(detail=f"letter {name}")
        again = fields.get("again") == "yes"
        results = await _alone(self.console, SEND_S, lambda: self._sent(name, session.caller.by, again=again))
        counts = Counter(it.outcome for it in results)
        if counts[Sent.FAILED] or not counts[Sent.SENT]:
            request[ASKED].error_code = "INVALID_STATE"
        return self.shown(
            request, session, "letter_sent.html", here="letters", name=name, results=results,
            status=200 if counts[Sent.SENT] else 409,
        )  # fmt: skip

    async def _sent(self, name: str, by: str, *, again: bool) -> list[Replayed]:
        chosen = await self.console.letters.choose(LetterFilter(name=name))
        results: list[Replayed] = []
        async with aclosing(self.console.letters.replay(list(chosen), by, again=again)) as batches:
            async for batch in batches:
                results += batch
        return results
