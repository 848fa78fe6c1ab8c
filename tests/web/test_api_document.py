"""openapi.yaml is made from the code, valid, complete, and true of what is answered."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from rigs.histories import run
from rigs.web_site import ANN, ID, PATH, Client, ask

from payment_service.codecs.published import decode_published, encode_published
from payment_service.core.ports import Step
from payment_service.tables.payments import row_of
from payment_service.web.api_calls import CALLS
from payment_service.web.api_document import as_yaml, document
from payment_service.web.api_examples import ANSWERED, SENT
from payment_service.web.envelope import STATUS_BY_CODE
from payment_service.web.site import BLUEPRINTS

FILE = Path(__file__).resolve().parents[2] / "openapi.yaml"
UNDOCUMENTED = "/mock/approve/{object_id}"
"""For development; and the documentation itself."""


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text() == as_yaml(), "openapi.yaml is stale: run `make api-docs`"


def test_it_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(yaml.safe_load(FILE.read_text())).validate()


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = {
        (method, (blueprint.url_prefix or "") + route.uri)
        for blueprint in BLUEPRINTS
        for route in blueprint.routes
        for method in (
            name for name in ("get", "post", "put", "delete", "patch") if name in route.handler._implemented()
        )
    }
    known = {(method, path) for method, path in routes if path != UNDOCUMENTED and not path.startswith("/api-docs")}
    assert {(call.method, call.path) for call in CALLS} == known


def test_every_word_of_the_contract_is_said_somewhere() -> None:
    text = as_yaml()
    missing = {word for word in STATUS_BY_CODE if f"`{word}`" not in text}
    assert not missing, missing


def _validator(method: str, path: str, status: int) -> Draft202012Validator:
    described: dict[str, Any] = document()
    answer = described["paths"][path][method]["responses"][str(status)]
    schema = answer["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": described["components"]})


def test_every_example_is_one() -> None:
    found, described = 0, document()
    for operations in described["paths"].values():
        for operation in operations.values():
            parts = [operation["requestBody"]] if "requestBody" in operation else []
            for part in (*parts, *operation["responses"].values()):
                for content in part["content"].values():
                    whole = {**content["schema"], "components": described["components"]}
                    values = [one["value"] for one in content.get("examples", {}).values()]
                    values += [content["example"]] if "example" in content else []
                    for value in values:
                        found += 1
                        Draft202012Validator(whole).validate(value)
    assert found > 20
    assert {*SENT, *(name for name, _ in ANSWERED)} <= {call.name for call in CALLS}


async def test_the_headers_that_are_described_are_sent(client: Client) -> None:
    described = document()["paths"]
    for method, path, url, body, status in (
        ("get", "/api/v1/payments/{payment_id}", PATH, None, 200),
        ("post", "/api/v1/payments/{payment_id}/cancel", f"{PATH}/cancel", {"odd": 1}, 422),
        ("get", "/health", "/health", None, 200),
    ):
        headers = set(described[path][method]["responses"][str(status)]["headers"]) - {"Idempotent-Replayed"}
        async with client.request(method, url, json=body, headers=ANN) as answer:
            assert answer.status == status
            told = {"X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After"} & set(answer.headers)
        assert told == headers, path


@pytest.mark.parametrize(
    "history",
    [
        "created",
        "created, charge, declined",
        "created, charge, object, approved, refund 1234, approved r#1, declined r#1",
        "created, cancel",
    ],
)
def test_a_row_of_the_table_has_the_shape_that_is_described(history: str) -> None:
    said = [one for one in run(history)[1] if one.topic is not None][-1]
    step = Step(said.event, said.after.version, said.after.sequence, said.topic, said.after)
    row = row_of(decode_published(encode_published(step)))
    described = document()["components"]
    schema = {"$ref": "#/components/schemas/TableRow", "components": described}
    Draft202012Validator(schema).validate(row)


async def test_answers_have_the_shapes_that_are_described(client: Client) -> None:
    order = {"orderId": "order-1", "amount": 99.99}
    asked: list[tuple[str, str, str, Any, dict[str, str]]] = [
        ("post", "/api/v1/payments", "/api/v1/payments", order, {**ANN}),
        ("post", "/api/v1/payments", "/api/v1/payments", {"orderId": 1, "cvc": 1}, {**ANN}),
        ("post", "/api/v1/payments", "/api/v1/payments", order, {}),
        ("get", "/api/v1/payments", "/api/v1/payments", None, {**ANN}),
        ("get", "/api/v1/payments/{payment_id}", PATH, None, {**ANN}),
        ("get", "/api/v1/payments/{payment_id}/timeline", f"{PATH}/timeline", None, {**ANN}),
        ("post", "/api/v1/payments/{payment_id}/process", f"{PATH}/process", {}, {**ANN}),
        ("post", "/api/v1/payments/{payment_id}/capture", f"{PATH}/capture", {}, {**ANN}),
        ("post", "/api/v1/payments/{payment_id}/cancel", f"{PATH}/cancel", {}, {**ANN}),
        ("post", "/api/v1/payments/{payment_id}/refund", f"{PATH}/refund", {}, {**ANN}),
        ("post", "/api/v1/refunds", "/api/v1/refunds", {"paymentId": ID}, {**ANN}),
        ("get", "/api/v1/orders/{order_id}/payment", "/api/v1/orders/order-1/payment", None, {**ANN}),
        ("get", "/health", "/health", None, {}),
        ("get", "/ready", "/ready", None, {}),
    ]
    for method, described, path, body, headers in asked:
        status, envelope = await ask(client, method.upper(), path, body, **headers)
        _validator(method, described, status).validate(envelope)


async def test_the_page_runs_nothing_from_elsewhere(client: Client) -> None:
    async with client.get("/api-docs") as page:
        assert page.status == 200
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        text = await page.text()
    sources = set(re.findall(r'(?:src|href)="([^"]+)"', text)) - {"data:,"}
    assert sources and not re.search(r"<script>|style=", text)
    for source in sources:
        assert source.startswith("/")
        async with client.get(source) as asset:
            assert asset.status == 200 and len(await asset.read()) > 50
    async with client.get("/api-docs/openapi.yaml") as served:
        assert await served.read() == FILE.read_bytes()
    for absent in ("/api-docs/other.js", "/api-docs/..%2Fsettings.py"):
        assert (await client.get(absent)).status == 404
