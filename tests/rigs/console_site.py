"""The console on the real use cases, over memory and the mock provider; letters and webhooks are the test's own."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.cookies import Morsel
from typing import Any

from aiohttp import ClientResponse
from rigs.method_rig import Rig, method_rig
from rigs.settable_clock import SettableClock
from rigs.web_site import NOW_S, RULES, Client, opened, services_with

from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.audit import AuditEntry, StoredEntry
from payment_service.core.dead_letters import Letter, LetterFilter, LetterPage, Replayed, Sent
from payment_service.core.errors import Refused
from payment_service.core.health import ProviderHealth
from payment_service.core.ids import payment_id_of
from payment_service.core.live import Reading
from payment_service.core.use_cases.operator_desk import OperatorDesk
from payment_service.core.webhooks import ListedWebhook
from payment_service.web.console.live_windows import LiveWindows
from payment_service.web.console.parts import Console
from payment_service.web.tokens import issue_token

KEY = bytes(range(32))
EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{7*7}}"""
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
PAYMENT = payment_id_of("o1")
PAGE = f"/console/payments/{PAYMENT}"
FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')
ONCE = re.compile(r'name="once" value="([^"]+)"')
LETTER = Letter(
    "0/7", "0/7@1", "orders", 2, 41, "MALFORMED_JSON", f"at byte 3 {EVIL}", int(NOW_S * 1000), EVIL.encode(),
    b'{"orderId": "o9", "email": "ann@shop.test", "note": "4242424242424242", "reason": "<b>tok_visa</b>"}', False,
    (("x-evil", EVIL.encode()),),
)  # fmt: skip
HOOK = ListedWebhook(
    5, "STRIPE", f"evt_{EVIL}", f"charge.{EVIL}", "PARKED", "NO_PAYMENT", None, f"pi_{EVIL}", 3,
    int(NOW_S * 1000), int(NOW_S * 1000),
)  # fmt: skip


@dataclass
class Letters:
    """A DeadLetterDesk."""

    letters: list[Letter] = field(default_factory=lambda: [LETTER])
    sent: list[tuple[str, str, bool]] = field(default_factory=list)

    async def find(self, wanted: LetterFilter, limit: int) -> LetterPage:
        found = [replace(it, value=None) for it in self.letters if wanted.fits(it, "")][-limit:]
        return LetterPage(found, {it.stamp: 10 for it in found}, {}, len(found), 0)

    async def get(self, name: str) -> Letter:
        for letter in self.letters:
            if letter.is_called(name):
                return letter
        raise Refused(f"there is no dead letter {name}", code="NOT_FOUND")

    async def choose(self, wanted: LetterFilter) -> Mapping[str, str]:
        letter = await self.get(wanted.name or "")
        return {letter.stamp: letter.id}

    async def replay(
        self, stamps: Collection[str], operator: str, *, again: bool
    ) -> AsyncGenerator[Sequence[Replayed], None]:
        for stamp in stamps:
            before = any(stamp == sent for sent, _, _ in self.sent)
            outcome = Sent.ALREADY if before and not again else Sent.SENT
            if outcome is Sent.SENT:
                self.sent.append((stamp, operator, again))
            yield [Replayed(stamp, "orders/2/41", outcome)]


@dataclass
class Hooks:
    """A WebhookRecords."""

    rows: list[ListedWebhook] = field(default_factory=lambda: [HOOK])
    replayed: list[int] = field(default_factory=list)

    async def listed(
        self, *, status: str | None = None, provider: str | None = None, row_id: int | None = None, limit: int
    ) -> Sequence[ListedWebhook]:
        fits = (it for it in self.rows if status in (None, it.status) and row_id in (None, it.row_id))
        return list(fits)[:limit]

    async def replay(self, *, status: str | None = None, row_id: int | None = None) -> int:
        found = [it.row_id for it in self.rows if it.row_id == row_id]
        self.replayed += found
        return len(found)


class Ended:
    """An EndedSessions of one worker."""

    def __init__(self) -> None:
        self.sessions: dict[str, float] = {}

    def is_ended(self, digest: str) -> bool:
        return digest in self.sessions

    async def end(self, digest: str, ends_s: float) -> None:
        self.sessions[digest] = ends_s


@dataclass
class Answer:
    """A page that is there as a whole."""

    status: int
    text: str
    headers: Mapping[str, str]
    cookies: Mapping[str, Morsel[str]]

    @property
    def form_token(self) -> str:
        found = FORM_TOKEN.search(self.text)
        assert found is not None, self.text
        return found[1]

    @property
    def once(self) -> str:
        found = ONCE.search(self.text)
        assert found is not None, self.text
        return found[1]


@dataclass
class ConsoleSite:
    rig: Rig
    client: Client
    clock: SettableClock
    audited: list[AuditEntry]
    letters: Letters
    hooks: Hooks
    live: LiveWindows
    metrics: PrometheusMetrics

    def token(self, user: str = "eve", *roles: str, valid_s: int = 3600) -> str:
        return issue_token(RULES, user, roles, now_ms=self.clock.now_ms(), valid_s=valid_s)

    async def get(self, path: str, **headers: str) -> Answer:
        return await answer_of(await self.client.get(path, headers=headers, allow_redirects=False))

    async def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        """As a browser sends a form of our own page."""
        sent = {"Sec-Fetch-Site": "same-origin"} | headers
        return await answer_of(await self.client.post(path, data=fields, headers=sent, allow_redirects=False))

    async def sign_in(self, *roles: str, user: str = "eve", after: str = "") -> Answer:
        fields = {"token": self.token(user, *roles), "next": after}
        return await self.post("/console/sign-in", fields)

    async def act(self, action: str, fields: Mapping[str, str], page: str = PAGE) -> Answer:
        """A form of a payment's page, as that page has it now."""
        shown = await self.get(page)
        once = ONCE.search(shown.text)
        hidden = {"form_token": shown.form_token, "once": once[1] if once else "x"}
        return await self.post(f"{page}/{action}", {**hidden, **fields})

    async def charged(self, amount: float = 99.99, **more: Any) -> None:
        await self.rig.create(amount=amount, **more)
        await self.rig.process("tok_visa")


async def answer_of(response: ClientResponse) -> Answer:
    return Answer(response.status, await response.text(), response.headers, dict(response.cookies))


async def healthy() -> Mapping[str, ProviderHealth] | None:
    return {f"STRIPE{EVIL}": ProviderHealth(1200, 0.995, 0.25, 1.5, {"SUCCEEDED": 1100}, 2)}


@asynccontextmanager
async def console_site(refund_roles: Collection[str] = ("admin",), **more: Any) -> AsyncIterator[ConsoleSite]:
    """`more`: fields of WebServices."""
    clock, metrics, audited = SettableClock(NOW_S), PrometheusMetrics(), list[AuditEntry]()
    letters, hooks = Letters(), Hooks()
    live = LiveWindows(lambda: Reading(clock.monotonic_s()))
    async with method_rig() as rig:
        desk = replace(rig.desk, rules=replace(rig.desk.rules, refund_roles=frozenset(refund_roles)))

        async def by_provider_id(text: str) -> list[str]:
            ids = [it.provider_id for it in (await rig.store.load(PAYMENT)).payment.attempts]  # type: ignore[union-attr]
            return [PAYMENT] if text in ids else []

        async def entries(payment_id: str | None, limit: int) -> Sequence[StoredEntry]:
            rows = [it for it in audited if payment_id in (None, it.payment_id)]
            return [StoredEntry("c", at, {**it._asdict(), "at": it.at_ms}) for at, it in enumerate(rows)][:limit]

        operators = OperatorDesk(desk.execute, desk.effects, desk.store, by_provider_id, 0.5)
        console = Console(
            operators, AesGcmCipher(KEY), frozenset(refund_roles), letters, hooks, entries, live, healthy, Ended(),
            "test",
        )  # fmt: skip
        fields = {"audit": audited.append, "keys": rig.store.keys, "console": console, **more}
        client = await opened(services_with(desk, clock=clock, metrics=metrics, **fields))
        try:
            yield ConsoleSite(rig, client, clock, audited, letters, hooks, live, metrics)
        finally:
            live.end()
            await client.close()
