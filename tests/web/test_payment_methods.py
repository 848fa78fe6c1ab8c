"""Saved methods over HTTP: the site on the real use case, over memory and the mock provider."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from rigs.method_rig import ACTION, Rig, method_rig
from rigs.web_site import ADMIN, ANN, BOB, SERVICE, Client, ask, opened, services_with

from payment_service.core.audit import AuditEntry
from payment_service.core.payment_method import Card, MethodAnswer, MethodSecrets
from payment_service.core.ports import NextAction
from payment_service.core.terms import Verdict
from payment_service.web.api_document import document

PATH = "/api/v1/payment-methods"
VISA = {"type": "card", "provider": "mock", "token": "tok_visa"}


@dataclass
class Site:
    rig: Rig
    client: Client
    audited: list[AuditEntry]

    async def ask(self, method: str, path: str = PATH, body: Any = None, who: Any = ANN) -> tuple[int, Any]:
        """Each answer has the shape that is described."""
        status, envelope = await ask(self.client, method, path, body, **who)
        described = path
        for row in await self.rig.kept.listed("user-1"):
            described = described.replace(row.method_id, "{method_id}")
        whole = document()
        if described in whole["paths"]:
            answer = whole["paths"][described][method.lower()]["responses"][str(status)]
            schema = answer["content"]["application/json"]["schema"]
            Draft202012Validator({**schema, "components": whole["components"]}).validate(envelope)
        return status, envelope

    async def saved(self, who: Any = ANN, **fields: Any) -> Any:
        status, envelope = await self.ask("POST", PATH, VISA | fields, who)
        assert status == 201, envelope
        return envelope["data"]


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    audited: list[AuditEntry] = []
    async with method_rig() as rig:
        client = await opened(services_with(rig.desk, methods=rig.methods, audit=audited.append))
        yield Site(rig, client, audited)
        await client.close()


async def test_one_is_saved_listed_made_the_default_and_removed(site: Site) -> None:
    method = await site.saved(token="tok_mastercard")
    assert method == {
        "id": method["id"], "type": "card", "provider": "MOCK", "status": "ACTIVE", "isDefault": False,
        "brand": "mastercard", "last4": "4444", "expMonth": 12, "expYear": 2034, "nextAction": None,
        "createdAt": method["createdAt"],
    }  # fmt: skip
    second = await site.saved(isDefault=True)
    assert second["isDefault"]
    status, made = await site.ask("PUT", f"{PATH}/{method['id']}/default")
    assert (status, made["data"]) == (200, {**method, "isDefault": True})
    status, listed = await site.ask("GET")
    assert (status, [(one["id"], one["isDefault"]) for one in listed["data"]]) == (
        200, [(method["id"], True), (second["id"], False)],
    )  # fmt: skip
    status, removed = await site.ask("DELETE", f"{PATH}/{method['id']}")
    assert (status, removed["data"]) == (200, {"id": method["id"], "deleted": True})
    assert [one["id"] for one in (await site.ask("GET"))[1]["data"]] == [second["id"]]
    assert (await site.ask("DELETE", f"{PATH}/{method['id']}"))[1]["code"] == "NOT_FOUND"
    assert [(one.action, one.result, one.detail) for one in site.audited[-2:]] == [
        ("method.remove", "OK", method["id"]), ("method.remove", "NOT_FOUND", method["id"]),
    ]  # fmt: skip
    assert site.audited[0].detail == method["id"]


async def test_the_old_services_body_is_taken(site: Site) -> None:
    body = {
        "type": "CREDIT_CARD", "provider": "MOCK", "providerToken": "tok_amex", "last4": "0000", "cardType": "visa",
        "expiryMonth": 1, "expiryYear": 2020, "isDefault": False,
    }  # fmt: skip
    status, envelope = await site.ask("POST", PATH, body)
    assert status == 201
    assert (envelope["data"]["last4"], envelope["data"]["expYear"], envelope["data"]["type"]) == ("8431", 2034, "card")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"status": "ACTIVE"}, "status"),
        ({"token": None}, "token"),
        ({"token": ""}, "token"),
        ({"token": "pmt_1"}, "token"),
        ({"token": "4242424242424242"}, "token"),
        ({"token": "nothing of ours"}, "token"),
        ({"providerToken": "tok_2"}, "providerToken"),
        ({"type": "gold"}, "type"),
        ({"type": "paypal"}, "type"),
        ({"provider": "no/pe"}, "provider"),
        ({"isDefault": "yes"}, "isDefault"),
        ({"returnUrl": "javascript:1"}, "returnUrl"),
        ({"last4": "4242424242424242"}, "last4"),
        ({"cvc": "123"}, "cvc"),
    ],
)
async def test_wrong_bodies_are_refused_by_field(site: Site, change: dict[str, Any], field: str) -> None:
    status, envelope = await site.ask("POST", PATH, VISA | change)
    assert (status, envelope["code"], list(envelope["errors"])) == (422, "VALIDATION_ERROR", [field])
    assert "4242424242424242" not in str(envelope)
    assert (await site.ask("GET"))[1]["data"] == []


async def test_a_provider_that_keeps_none_says_so(site: Site) -> None:
    status, envelope = await site.ask("POST", PATH, {**VISA, "type": "paypal", "provider": "paypal"})
    assert (status, envelope["code"]) == (422, "PROVIDER_NOT_CONFIGURED")


async def test_a_declined_card_is_402_with_its_reason(site: Site) -> None:
    status, envelope = await site.ask("POST", PATH, VISA | {"token": "tok_chargeDeclinedInsufficientFunds"})
    assert (status, envelope["code"], envelope["declineCode"]) == (402, "CARD_DECLINED", "insufficient_funds")
    assert site.audited[-1].result == "CARD_DECLINED"


async def test_the_shopper_is_told_what_to_do(site: Site) -> None:
    site.rig.scripted.says = [ACTION, ACTION]
    method = await site.saved(provider="stripe", token="tok_3ds", returnUrl="https://shop.test/back")
    assert method["status"] == "REQUIRES_ACTION"
    assert method["nextAction"] == {"type": "redirect", "url": "https://bank.test/3ds"}
    assert site.rig.scripted.calls[0][1].secrets.return_url == "https://shop.test/back"
    (waiting,) = (await site.ask("GET"))[1]["data"]
    assert waiting["nextAction"] == method["nextAction"]
    (confirmed,) = (await site.ask("GET"))[1]["data"]
    assert (confirmed["status"], confirmed["nextAction"]) == ("ACTIVE", None)


async def test_without_a_token_paypal_asks_its_shopper(site: Site) -> None:
    site.rig.methods.keepers["PAYPAL"] = site.rig.scripted  # type: ignore[index]
    said = MethodAnswer(
        Verdict.PENDING, next_action=NextAction("redirect", "https://paypal.test/approve"),
        secrets=MethodSecrets(setup_id="SETUP1", return_url="https://shop.test/back"), card=Card("paypal"),
    )  # fmt: skip
    site.rig.scripted.says = [MethodAnswer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")]
    body = {"type": "paypal", "provider": "paypal", "returnUrl": "https://shop.test/back"}
    status, lost = await site.ask("POST", PATH, body)
    assert (status, lost["data"]["status"], lost["data"]["nextAction"]) == (202, "PENDING", None)
    status, again = await site.ask("POST", PATH, body)
    assert (status, again["data"]["id"]) == (202, lost["data"]["id"]), "asked once"

    other = body | {"returnUrl": "https://shop.test/basket"}
    elsewhere = MethodSecrets(setup_id="SETUP2", return_url=other["returnUrl"])
    site.rig.scripted.says = [replace(said, secrets=elsewhere)] * 2
    status, asked = await site.ask("POST", PATH, other)
    assert (status, asked["data"]["status"], asked["data"]["brand"]) == (201, "REQUIRES_ACTION", "paypal")
    assert asked["data"]["nextAction"] == {"type": "redirect", "url": "https://paypal.test/approve"}
    status, again = await site.ask("POST", PATH, other)
    assert (status, again["data"]) == (200, asked["data"])
    (approved,) = [one for one in (await site.ask("GET"))[1]["data"] if one["id"] == asked["data"]["id"]]
    assert (approved["status"], approved["nextAction"]) == ("ACTIVE", None)
    site.rig.scripted.says = [said]
    status, second = await site.ask("POST", PATH, other)
    assert (status, second["data"]["id"] == asked["data"]["id"]) == (201, False), "another wallet"
    for wrong in (body | {"provider": "mock"}, {**body, "type": "card", "provider": "stripe"}):
        status, envelope = await site.ask("POST", PATH, wrong)
        assert (status, envelope["code"]) == (422, "VALIDATION_ERROR")


async def test_what_is_not_known_yet_is_202(site: Site) -> None:
    site.rig.scripted.says = [MethodAnswer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")]
    body = VISA | {"provider": "stripe", "token": "tok_1"}
    status, envelope = await site.ask("POST", PATH, body)
    assert (status, envelope["data"]["status"]) == (202, "PENDING")
    assert (await site.ask("POST", PATH, body))[0] == 202
    status, envelope = await site.ask("DELETE", f"{PATH}/{envelope['data']['id']}")
    assert (status, envelope["code"]) == (409, "INVALID_STATE")


async def test_nobody_sees_or_touches_another_users(site: Site) -> None:
    method = await site.saved()
    for who in (BOB, ADMIN):
        assert (await site.ask("GET", who=who))[1]["data"] == []
        for asked in (("DELETE", f"{PATH}/{method['id']}"), ("PUT", f"{PATH}/{method['id']}/default")):
            status, envelope = await site.ask(*asked, who=who)
            assert (status, envelope["code"]) == (404, "NOT_FOUND")
    for verb, path in (("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/{method['id']}")):
        status, envelope = await site.ask(verb, path, VISA if verb == "POST" else None, SERVICE)
        assert (status, envelope["code"]) == (403, "FORBIDDEN")
        assert (await ask(site.client, verb, path))[0] == 401
    assert [one["id"] for one in (await site.ask("GET"))[1]["data"]] == [method["id"]]


async def test_a_user_has_twenty(site: Site) -> None:
    for number in range(20):
        await site.saved(token=f"tok_{number}")
    status, envelope = await site.ask("POST", PATH, VISA)
    assert (status, envelope["code"]) == (409, "INVALID_STATE")


async def test_an_id_that_cannot_be_one_is_not_found(site: Site) -> None:
    for name in ("pmt_" + "x" * 100, "%00", "pmt_1%0a"):
        assert (await ask(site.client, "DELETE", f"{PATH}/{name}", **ANN))[1]["code"] == "NOT_FOUND"


async def test_a_payment_shows_the_method_and_never_its_token(site: Site) -> None:
    method = await site.saved()
    order = {"orderId": "order-1", "amount": 10, "paymentMethodId": method["id"]}
    status, envelope = await ask(site.client, "POST", "/api/v1/payments", order, **ANN)
    assert (status, envelope["data"]["paymentMethodId"]) == (201, method["id"])
    path = f"/api/v1/payments/{envelope['data']['id']}"
    status, envelope = await ask(site.client, "POST", f"{path}/process", {}, **ANN)
    assert (status, envelope["data"]["status"], envelope["data"]["paymentMethodId"]) == (200, "SUCCEEDED", method["id"])
    shown = [
        envelope,
        await ask(site.client, "GET", path, **ANN),
        await ask(site.client, "GET", f"{path}/timeline", **ANN),
    ]
    assert "tok_visa" not in str(shown) and method["id"] in str(shown[2])
    status, envelope = await ask(site.client, "POST", "/api/v1/payments", {**order, "orderId": "o-2"}, **BOB)
    assert (status, envelope["code"]) == (404, "NOT_FOUND")
    other = {**order, "orderId": "o-3", "provider": "STRIPE"}
    status, envelope = await ask(site.client, "POST", "/api/v1/payments", other, **ANN)
    assert (status, list(envelope["errors"])) == (422, ["paymentMethodId"])
