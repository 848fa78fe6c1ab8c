"""The console in a real Chromium, on a real worker: by keyboard, on a narrow screen, in the dark, without JavaScript.

Run by `make test-console`. Pictures of every page are kept in .data/console/, for people to look at.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rigs.console_worker import ConsoleWorker, console_worker
from rigs.worker import token_of
from servers.postgres import database_on

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = Path(__file__).resolve().parents[2] / ".data" / "console"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FOCUS = """() => { const one = document.activeElement, style = getComputedStyle(one);
    return [one.textContent.trim().split("\\n")[0] || one.id, style.outlineStyle, parseFloat(style.outlineWidth)]; }"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(
    tmp_path_factory: pytest.TempPathFactory, tansu_broker: str, postgres_server: str, migrated_template: str
) -> AsyncIterator[ConsoleWorker]:
    with database_on(postgres_server, migrated_template) as url:
        async with console_worker(tmp_path_factory.mktemp("console"), tansu_broker, url) as made:
            yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or CHROMIUM=/path/to/it")
    playwright = pytest.importorskip("playwright.async_api", reason="pip install playwright")
    PICTURES.mkdir(parents=True, exist_ok=True)
    async with playwright.async_playwright() as started:
        # Root in a container has no sandbox; what is opened here is ours alone.
        browser = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def page_in(chromium: Any, opened: ConsoleWorker, *, expected: str = "\0", **options: Any) -> AsyncIterator[Any]:
    """A new browser profile. Whatever a page complains about, a stopped script above all, fails the test, but for what
    has `expected` in it."""
    context = await chromium.new_context(base_url=opened.worker.url, **({"viewport": WIDE} | options))
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda it: complaints.append(it.text) if it.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append("a script of a stranger ran"))
    page.on("request", lambda it: None if it.url.startswith(opened.worker.url) else complaints.append(it.url))
    yield page
    await context.close()
    assert [it for it in complaints if expected not in it] == []


async def sign_in(page: Any, role: str = "admin") -> None:
    await page.goto("/console")
    await page.fill("#token", token_of("eve", (role,)))
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".who")


def pages_of(opened: ConsoleWorker) -> dict[str, str]:
    named = {order: f"/console/payments/{opened.id(order)}" for order in ("paid", "refunded", "unknown", "declined")}
    return {
        "payments": "/console", "found": "/console?q=shopper-7", "nothing": "/console?q=nobody", **named,
        "letters": "/console/dead-letters", "webhooks": "/console/webhooks?status=ALL", "live": "/console/live",
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["wide", "narrow"])
async def test_every_page_fits_and_is_kept_as_a_picture(
    chromium: Any, opened: ConsoleWorker, view: str, scheme: str
) -> None:
    size = WIDE if view == "wide" else NARROW
    async with page_in(chromium, opened, viewport=size, color_scheme=scheme) as page:
        await page.goto("/console/sign-in")
        await page.screenshot(path=PICTURES / f"{view}-{scheme}-sign-in.png")
        await sign_in(page)
        for name, path in pages_of(opened).items():
            await page.goto(path)
            if name == "live":
                await page.wait_for_selector("#chart-rate svg")
            await page.screenshot(path=PICTURES / f"{view}-{scheme}-{name}.png", full_page=True)
            assert await page.evaluate(OVERFLOW) <= 0, f"{name} is wider than the screen"
        await page.goto("/console/dead-letters")
        await page.click("td a.id")
        await page.screenshot(path=PICTURES / f"{view}-{scheme}-letter.png", full_page=True)
        assert await page.evaluate(OVERFLOW) <= 0


async def test_contrast_is_enough_in_the_light_and_in_the_dark(chromium: Any, opened: ConsoleWorker) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, of every text on the fullest page."""
    for scheme in ("light", "dark"):
        async with page_in(chromium, opened, color_scheme=scheme) as page:
            await sign_in(page)
            await page.goto(f"/console/payments/{opened.id('unknown')}")
            assert await page.evaluate(LOW_CONTRAST) == []


LOW_CONTRAST = """() => {
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length && (colour.length < 4 || colour[3] > 0)) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const one of document.querySelectorAll("body *")) {
    if (!one.checkVisibility() || one.closest("svg")) continue;
    if (![...one.childNodes].some((it) => it.nodeType === 3 && it.textContent.trim())) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${one.tagName}.${one.className}: ${one.textContent.trim()}`);
  }
  return low;
}"""


async def test_by_keyboard_alone(chromium: Any, opened: ConsoleWorker) -> None:
    """From the skip link to a refund, with a focus that is always to be seen."""
    async with page_in(chromium, opened) as page:
        await page.goto("/console")
        await page.keyboard.type(token_of("eve", ("admin",)))  # the field has the focus already
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".who")
        order = []
        for _ in range(9):
            await page.keyboard.press("Tab")
            name, style, width = await page.evaluate(FOCUS)
            assert (style, width >= 2) == ("solid", True), f"nobody sees the focus on {name}"
            order.append(name.partition(" ")[0])
        assert order[:7] == ["Skip", "Payments", "Payments", "Dead", "Webhooks", "Live", "Sign"]
        await page.goto("/console")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0, "the skip link is there"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "q", "past the navigation"
        await page.keyboard.type("paid")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/console/payments/{opened.id('paid')}")
        while await page.evaluate("document.activeElement.textContent.trim()") != "Refund":
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.type("9.99")
        await page.keyboard.press("Tab")
        await page.keyboard.type("one mug broke")
        await page.screenshot(path=PICTURES / "refund-form.png", full_page=True)
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".note-good")
        assert "90.00 USD" in await page.text_content("main")


async def test_reading_and_forms_without_javascript(chromium: Any, opened: ConsoleWorker) -> None:
    async with page_in(chromium, opened, java_script_enabled=False) as page:
        await page.goto("/console")
        await page.fill("#token", token_of("eve", ("admin",)))
        await page.click("button.main")
        await page.goto(f"/console/payments/{opened.id('held')}")
        assert "The money is held, and not taken yet." in await page.text_content("main")
        await page.click("summary:has-text('Cancel')")
        await page.fill("#cancel-reason", "the shopper called")
        await page.click("button:has-text('Cancel the payment')")
        assert "It will not be charged." in await page.text_content("main")
        await page.goto("/console/live")
        assert "Load the page again" in await page.text_content("main")
        assert "MOCK" in await page.text_content("#table-providers")


async def test_what_went_wrong_is_said_beside_the_form(chromium: Any, opened: ConsoleWorker) -> None:
    async with page_in(chromium, opened, expected="422") as page:
        await sign_in(page)
        await page.goto(f"/console/payments/{opened.id('refunded')}")
        assert await page.locator("summary:has-text('Refund')").count() == 0, "nothing is left to refund"
        await page.goto(f"/console/payments/{opened.id('unknown')}")
        await page.click("summary:has-text('Decide by hand')")
        await page.click("text=The provider said no")
        await page.fill("#resolve-id", "ch_1")
        await page.fill("#resolve-reason", "seen")
        await page.check("input[name=looked]")
        await page.click("button:has-text('Record it')")
        alert = await page.text_content("[role=alert]")
        assert "only for what was done" in alert
        assert await page.input_value("#resolve-reason") == "seen", "nobody types it twice"
        await page.screenshot(path=PICTURES / "decide-form.png", full_page=True)


async def test_support_sees_no_button_that_is_not_theirs(chromium: Any, opened: ConsoleWorker) -> None:
    async with page_in(chromium, opened) as page:
        await sign_in(page, "support")
        for order in ("paid", "unknown", "new"):
            await page.goto(f"/console/payments/{opened.id(order)}")
            buttons = await page.locator("main button").all_text_contents()
            assert set(buttons) <= {"Ask now"}
        await page.goto("/console/live")
        await page.wait_for_selector("#live-state.tone-good")
        assert re.search(r"MOCK", await page.text_content("#table-providers"))
