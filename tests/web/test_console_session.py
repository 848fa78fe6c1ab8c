"""Who gets into the console: sessions, their cookie and their end; what comes from elsewhere; where one is sent."""

import base64
import html
import re
from collections.abc import AsyncIterator

import pytest
from rigs.console_site import KEY, PAGE, ConsoleSite, console_site
from rigs.web_site import ADMIN, NOW_S, PATH, RULES

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.web.console.session import IDLE_S, PLACE
from payment_service.web.console.sign_in import wanted_page
from payment_service.web.site import SERVED
from payment_service.web.tokens import issue_token

READ = ["/console", "/console/", PAGE, "/console/dead-letters", "/console/webhooks", "/console/webhooks/5",
        "/console/dead-letters/letter?id=0/7", "/console/live", "/console?q=o1"]  # fmt: skip
CHANGE = [f"{PAGE}/ask", f"{PAGE}/refund", f"{PAGE}/cancel", f"{PAGE}/resolve", "/console/dead-letters/replay",
          "/console/webhooks/replay"]  # fmt: skip
OPEN = {"/console/sign-in", "/console/sign-out", "/console/assets/{name}"}


@pytest.fixture
async def site() -> AsyncIterator[ConsoleSite]:
    async with console_site() as opened:
        await opened.charged()
        yield opened


def test_no_page_is_missing_in_these_lists() -> None:
    pages = {route.uri for route in SERVED[-1].routes}
    listed = {path.partition("?")[0].replace(PAGE, "/console/payments/{payment_id}") for path in READ + CHANGE}
    listed = {path.replace("/webhooks/5", "/webhooks/{row_id}") for path in listed}
    assert pages == listed | OPEN | {"/console/live/events"}


@pytest.mark.parametrize("path", READ)
async def test_without_a_session_one_is_sent_to_sign_in(site: ConsoleSite, path: str) -> None:
    answer = await site.get(path)
    assert answer.status == 303
    assert answer.headers["Location"].startswith("/console/sign-in?next=/console")
    assert not answer.text


@pytest.mark.parametrize("path", [*CHANGE, "/console/live/events"])
async def test_without_a_session_nothing_is_done(site: ConsoleSite, path: str) -> None:
    answer = await (site.get(path) if path.endswith("events") else site.post(path, {"reason": "because"}))
    assert answer.status == 401
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert (site.letters.sent, site.hooks.replayed) == ([], [])


@pytest.mark.parametrize("headers", [ADMIN, {"X-Internal-Token": "token-of-the-return-service"}])
async def test_a_bearer_token_is_no_session(site: ConsoleSite, headers: dict[str, str]) -> None:
    assert (await site.get("/console", **headers)).status == 303


async def test_a_session_is_no_bearer_token(site: ConsoleSite) -> None:
    assert (await site.sign_in("admin")).status == 303
    assert (await site.get(PATH)).status == 401


@pytest.mark.parametrize(
    ("roles", "status"),
    [(("admin",), 303), (("support",), 303), ((), 403), (("service",), 403), (("owner",), 403), (("Admin",), 403)],
)
async def test_which_roles_come_in(site: ConsoleSite, roles: tuple[str, ...], status: int) -> None:
    answer = await site.sign_in(*roles)
    assert answer.status == status
    assert bool(answer.cookies) is (status == 303)
    told = site.audited[-1]
    result = "OK" if status == 303 else "FORBIDDEN"
    assert (told.action, told.result, told.actor) == ("console.sign_in", result, "operator:eve")


async def test_a_token_that_is_none_is_told_to_the_audit_log_and_shown_nowhere(site: ConsoleSite) -> None:
    for token in ("nonsense-of-a-token", site.token("eve", "admin", valid_s=-5), "é", ""):
        answer = await site.post("/console/sign-in", {"token": token})
        assert (answer.status, not answer.cookies) == (401, True)
        assert not token or token not in answer.text
        assert (site.audited[-1].result, site.audited[-1].actor) == ("UNAUTHORIZED", "anonymous")
    assert "nonsense" not in str(site.audited)


async def test_the_cookie_over_http(site: ConsoleSite) -> None:
    cookie = (await site.sign_in("admin")).cookies["console"]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, "", "Strict")
    assert cookie["path"] == "/console"
    assert int(cookie["max-age"]) == IDLE_S


async def test_the_cookie_over_https_is_bound_to_this_host() -> None:
    async with console_site(https_only=True) as site:
        cookie = (await site.sign_in("admin")).cookies["__Host-console"]
        assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Strict")
        assert (cookie["path"], cookie["domain"]) == ("/", "")
        # What somebody planted under the plain name means nothing there.
        planted = {"Cookie": f"console={cookie.value}"}
        assert (await site.get("/console", **planted)).status == 303
        assert (await site.get("/console", Cookie=f"__Host-console={cookie.value}")).status == 200


async def test_a_session_ends_without_pages_and_lives_on_with_them(site: ConsoleSite) -> None:
    await site.sign_in("admin")
    for _ in range(3):
        site.clock.pass_s(IDLE_S - 10)
        if site.clock.now_ms() / 1000 < NOW_S + 3600:
            assert (await site.get("/console")).status == 200
    assert (await site.get("/console")).status == 303, "the token is over after an hour, and so is what came of it"


async def test_a_session_ends_when_nobody_is_there(site: ConsoleSite) -> None:
    cookie = (await site.sign_in("admin")).cookies["console"].value
    site.clock.pass_s(IDLE_S + 1)
    assert (await site.get("/console", Cookie=f"console={cookie}")).status == 303


async def test_a_session_is_made_anew_at_every_sign_in(site: ConsoleSite) -> None:
    """Whatever an attacker had a browser bring along is not what is used afterwards."""
    first = (await site.sign_in("support", user="mallory")).cookies["console"].value
    before = (await site.get("/console")).form_token
    second = (await site.sign_in("admin", user="ann")).cookies["console"].value
    after = await site.get("/console")
    assert first != second
    assert before != after.form_token
    assert "ann" in after.text
    assert "mallory" not in after.text


@pytest.mark.parametrize("how", ["cut", "changed", "another key", "another place", "text", "long"])
async def test_a_cookie_that_is_not_ours_is_none(site: ConsoleSite, how: str) -> None:
    value = (await site.sign_in("admin")).cookies["console"].value
    plain = b'["eve",["admin"],"x",1800000000,1900000000]'
    forged = {
        "cut": value[:-8],
        "changed": value[:40] + ("A" if value[40] != "A" else "B") + value[41:],
        "another key": base64.urlsafe_b64encode(AesGcmCipher(bytes(32)).seal(plain, PLACE)).decode(),
        "another place": base64.urlsafe_b64encode(AesGcmCipher(KEY).seal(plain, "payments.secrets")).decode(),
        "text": base64.urlsafe_b64encode(plain).decode(),
        "long": value * 20,
    }[how]
    site.client.session.cookie_jar.clear()
    assert (await site.get("/console", Cookie=f"console={forged}")).status == 303


async def test_the_token_is_not_in_the_cookie(site: ConsoleSite) -> None:
    value = (await site.sign_in("admin")).cookies["console"].value
    plain = AesGcmCipher(KEY).unseal(base64.urlsafe_b64decode(value), PLACE).decode()
    assert issue_token(RULES, "eve", ["admin"], now_ms=int(NOW_S * 1000)).rpartition(".")[2] not in plain


@pytest.mark.parametrize("path", ["/console/dead-letters/letter?id=0/7", "/console?q=a%26b&status=FAILED", PAGE])
async def test_signing_in_leads_back_to_where_one_was(site: ConsoleSite, path: str) -> None:
    sent = await site.get(path)
    page = await site.get(sent.headers["Location"])
    after = re.search(r'name="next" value="([^"]*)"', page.text)
    assert after is not None
    assert (await site.sign_in("admin", after=html.unescape(after[1]))).headers["Location"] == path


async def test_signing_out_forgets_the_cookie(site: ConsoleSite) -> None:
    await site.sign_in("admin")
    page = await site.get("/console")
    assert (await site.post("/console/sign-out", {"form_token": "x" * 64})).status == 403
    assert (await site.get("/console")).status == 200
    answer = await site.post("/console/sign-out", {"form_token": page.form_token})
    assert (answer.status, answer.cookies["console"].value) == (303, "")
    assert (await site.get("/console")).status == 303


async def test_a_copy_of_the_cookie_is_worth_nothing_after_signing_out(site: ConsoleSite) -> None:
    other = (await site.sign_in("admin", user="other")).cookies["console"].value
    copied = (await site.sign_in("admin")).cookies["console"].value
    page = await site.get("/console")
    await site.post("/console/sign-out", {"form_token": page.form_token})
    stolen = {"Cookie": f"console={copied}"}
    assert (await site.get("/console", **stolen)).status == 303
    assert (await site.post(f"{PAGE}/cancel", {"form_token": page.form_token}, **stolen)).status == 401
    assert (await site.get("/console", Cookie=f"console={other}")).status == 200, "of another session"
    await site.sign_in("admin")
    assert (await site.get("/console")).status == 200, "the same operator may sign in again"


@pytest.mark.parametrize(
    ("asked", "sent_to"),
    [
        (PAGE, PAGE),
        ("/console?q=o1&status=UNKNOWN", "/console?q=o1&status=UNKNOWN"),
        ("/console/dead-letters/letter?id=0/7", "/console/dead-letters/letter?id=0/7"),
        *((odd, "/console") for odd in (
            "https://evil.test/", "//evil.test", "/\\evil.test", "/console//evil.test", "/console/../api", "data:x",
            "/consolez", "/console@evil.test", "/console\n", "/console/\r\nX: y", "/console/sign-out", "",
            "/console/" + "a" * 600, "/api/v1/payments", "/console/.//x", "/console/%2e%2e/api",
        )),
    ],
)  # fmt: skip
async def test_where_one_goes_after_signing_in(site: ConsoleSite, asked: str, sent_to: str) -> None:
    assert (await site.sign_in("admin", after=asked)).headers["Location"] == sent_to
    assert wanted_page(asked) == sent_to


@pytest.mark.parametrize("site_of", ["cross-site", "same-site", "none", "odd"])
@pytest.mark.parametrize("path", ["/console/sign-in", "/console/sign-out", *CHANGE])
async def test_a_form_of_another_page_is_refused(site: ConsoleSite, path: str, site_of: str) -> None:
    await site.sign_in("admin")
    shown = await site.get(PAGE)
    fields = {"form_token": shown.form_token, "once": shown.once, "reason": "because"}
    fields["token"] = site.token("e", "admin")
    answer = await site.post(path, fields, **{"Sec-Fetch-Site": site_of})
    assert (answer.status, not answer.cookies) == (403, True)
    assert not (await site.rig.store.load(PAGE.rpartition("/")[2])).payment.refunds  # type: ignore[union-attr]


@pytest.mark.parametrize(("origin", "status"), [("http://evil.test", 403), ("null", 403), (None, 303), ("own", 303)])
async def test_a_browser_that_only_says_its_origin(site: ConsoleSite, origin: str | None, status: int) -> None:
    own = f"http://{site.client.host}:{site.client.port}"
    headers = {} if origin is None else {"Origin": own if origin == "own" else origin}
    fields = {"token": site.token("eve", "admin")}
    answer = await site.client.post("/console/sign-in", data=fields, headers=headers, allow_redirects=False)
    assert answer.status == status


@pytest.mark.parametrize("path", CHANGE)
@pytest.mark.parametrize("form_token", ["", "0" * 64, "é"])
async def test_a_form_without_the_session_s_token_is_refused(site: ConsoleSite, path: str, form_token: str) -> None:
    await site.sign_in("admin")
    shown = await site.get(PAGE)
    fields = {"form_token": form_token, "once": shown.once, "reason": "because", "id": "5"}
    assert (await site.post(path, fields)).status == 403
    assert (site.letters.sent, site.hooks.replayed) == ([], [])


async def test_the_token_of_another_session_is_refused(site: ConsoleSite) -> None:
    await site.sign_in("admin", user="mallory")
    stolen = (await site.get(PAGE)).form_token
    await site.sign_in("admin", user="ann")
    shown = await site.get(PAGE)
    fields = {"form_token": stolen, "once": shown.once, "reason": "because"}
    assert (await site.post(f"{PAGE}/refund", fields)).status == 403


@pytest.mark.parametrize("path", [*READ, "/console/sign-in", "/console/nowhere", "/console/webhooks/x"])
async def test_no_page_may_be_framed_or_run_anything_else(site: ConsoleSite, path: str) -> None:
    await site.sign_in("admin")
    answer = await site.get(path)
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert (answer.headers["X-Frame-Options"], answer.headers["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("no-store", "same-origin")
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    # Nothing inline that the policy would stop: a page that needs it is broken, a page that has it is suspicious.
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=(?=[\"'])|javascript:", answer.text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", answer.text), "nothing comes from elsewhere"


async def test_files_are_kept_by_browsers_and_are_no_way_to_others(site: ConsoleSite) -> None:
    for name, kind in (("console.css", "text/css"), ("live.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        answer = await site.client.get(f"/console/assets/{name}")
        assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert "immutable" in answer.headers["Cache-Control"]
    for odd in ("pages.py", "..%2Fpages.py", "%2e%2e%2fsession.py", "base.html"):
        assert (await site.client.get(f"/console/assets/{odd}")).status == 404


async def test_without_a_console_there_is_none(site: ConsoleSite) -> None:
    async with console_site(console=None) as bare:
        for path in ("/console", "/console/sign-in", "/console/live"):
            answer = await bare.client.get(path, allow_redirects=False)
            assert answer.status in (404, 500), path
