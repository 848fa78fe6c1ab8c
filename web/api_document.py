"""The API's description as OpenAPI 3.1, made from the models that check bodies and the shapes of the answers.

Room: web. `python -m payment_service.web.api_document` writes openapi.yaml; a test fails when that file is stale, and
another when a route is missing here.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from payment_service.core.money import AMOUNT_MINOR_MAX, AMOUNT_TEXT_MAX
from payment_service.web import shapes
from payment_service.web.api_words import DESCRIPTION, ERRORS, TAGS
from payment_service.web.bodies import (
    CancelBody,
    CaptureBody,
    CreateBody,
    ListQuery,
    ProcessBody,
    RefundBody,
    RefundOfBody,
)
from payment_service.web.method_bodies import MethodBody

VERSION = "1.0.0"
OPENAPI = "3.1.0"
REF = "#/components/schemas/{model}"
Mode = Any
"""pydantic's word for "of an input" or "of an output"."""

AMOUNT_IN: Mapping[str, Any] = {
    "description": "In major units, with at most as many decimals as the currency has; never rounded.",
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": AMOUNT_MINOR_MAX},
        {"type": "string", "maxLength": AMOUNT_TEXT_MAX, "pattern": r"^[0-9]+(\.[0-9]+)?$"},
    ],
    "examples": [99.99, "99.99"],
}
MOMENT_IN: Mapping[str, Any] = {
    "type": "string",
    "anyOf": [{"format": "date"}, {"format": "date-time"}],
    "examples": ["2026-01-31", "2026-01-31T12:00:00Z"],
}
"""A date (the whole day), or an RFC 3339 date-time."""
IDEMPOTENCY_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body get the same answer for 24 hours, however often they are sent.",
    # An sf-string of RFC 8941, or bare.
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": r'^("([\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+"|[\x21\x23-\x7e][\x21-\x7e]*)$',
    },
}


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `answers`: the shape of `data` by status; `errors`: the words it may fail with, beside those of
    every call."""

    method: str
    path: str
    summary: str
    tag: str
    answers: Mapping[int, type[BaseModel] | list[type[BaseModel]]]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    flags: tuple[str, ...] = ()
    """Names of true/false query parameters."""
    errors: Sequence[str] = ()
    open_to_all: bool = False


_READ = ("PAYMENT_NOT_FOUND",)
_CHANGE = ("PAYMENT_NOT_FOUND", "INVALID_STATE", "VALIDATION_ERROR", "MALFORMED_JSON", "PAYLOAD_TOO_LARGE")
_KEYED = ("IDEMPOTENCY_IN_PROGRESS", "IDEMPOTENCY_MISMATCH")
_PROVIDER = ("PROVIDER_NOT_CONFIGURED", "PROVIDER_UNAVAILABLE")
_WEBHOOK = (
    "INVALID_SIGNATURE", "IP_NOT_ALLOWED", "RATE_LIMITED", "PAYLOAD_TOO_LARGE", "NOT_FOUND", "SERVICE_UNAVAILABLE",
    "MALFORMED_JSON",
)  # fmt: skip

CALLS: tuple[Call, ...] = (
    Call(
        "post", "/api/v1/payments", "Create the payment of an order", "Payments",
        {201: shapes.Payment, 200: shapes.Payment, 202: shapes.Payment}, CreateBody,
        errors=("PAYMENT_EXISTS", *_CHANGE[1:], *_KEYED, "AMOUNT_MISMATCH", "PROVIDER_NOT_CONFIGURED", "NOT_FOUND",
                "PAYMENT_NOT_FOUND"),
    ),
    Call("get", "/api/v1/payments", "List payments", "Payments", {200: shapes.PaymentPage}, query=ListQuery,
         errors=("VALIDATION_ERROR",)),
    Call("get", "/api/v1/payments/{payment_id}", "Read a payment", "Payments", {200: shapes.PaymentWithHistory},
         flags=("sync",), errors=(*_READ, "VALIDATION_ERROR")),
    Call("get", "/api/v1/payments/{payment_id}/timeline", "What happened, in order", "Payments",
         {200: [shapes.TimelineRow]}, errors=_READ),
    Call(
        "post", "/api/v1/payments/{payment_id}/process", "Charge, or authorize", "Payments",
        {200: shapes.Payment, 202: shapes.Payment}, ProcessBody,
        errors=(*_CHANGE, *_KEYED, *_PROVIDER, "CARD_DECLINED", "ORDER_UNCONFIRMED", "NOT_FOUND"),
    ),
    Call("post", "/api/v1/payments/{payment_id}/capture", "Capture what was authorized", "Payments",
         {200: shapes.Payment, 202: shapes.Payment}, CaptureBody,
         errors=(*_CHANGE, *_KEYED, *_PROVIDER, "CARD_DECLINED")),
    Call("post", "/api/v1/payments/{payment_id}/cancel", "Cancel before money was taken", "Payments",
         {200: shapes.Payment}, CancelBody, errors=(*_CHANGE, *_KEYED)),
    Call("post", "/api/v1/payments/{payment_id}/refund", "Give money back", "Refunds",
         {200: shapes.RefundAndPayment}, RefundBody, errors=(*_CHANGE, *_KEYED, *_PROVIDER, "REFUND_EXCEEDS")),
    Call("post", "/api/v1/refunds", "Give money back, by payment id in the body", "Refunds", {200: shapes.Refund},
         RefundOfBody, errors=(*_CHANGE, *_KEYED, *_PROVIDER, "REFUND_EXCEEDS")),
    Call("get", "/api/v1/orders/{order_id}/payment", "Read the payment of an order", "Payments",
         {200: shapes.PaymentWithHistory}, errors=_READ),
    Call("post", "/api/v1/payment-methods", "Save a way to pay", "Payment methods",
         {201: shapes.Method, 200: shapes.Method, 202: shapes.Method}, MethodBody,
         errors=(*_CHANGE[1:], *_KEYED, *_PROVIDER, "CARD_DECLINED")),
    Call("get", "/api/v1/payment-methods", "List the user's saved ways to pay", "Payment methods",
         {200: [shapes.Method]}),
    Call("delete", "/api/v1/payment-methods/{method_id}", "Remove one", "Payment methods",
         {200: shapes.RemovedMethod}, errors=("NOT_FOUND", "INVALID_STATE")),
    Call("put", "/api/v1/payment-methods/{method_id}/default", "Make it the user's default", "Payment methods",
         {200: shapes.Method}, errors=("NOT_FOUND", "INVALID_STATE")),
    Call("post", "/api/v1/webhooks", "A provider's event, told by its headers", "Webhooks", {200: shapes.Received},
         shapes.ProviderEvent, errors=_WEBHOOK, open_to_all=True),
    Call("post", "/api/v1/webhooks/{provider}", "A provider's event", "Webhooks", {200: shapes.Received},
         shapes.ProviderEvent, errors=_WEBHOOK, open_to_all=True),
    Call("get", "/health", "The process is up", "Operation", {200: shapes.Health}, open_to_all=True),
    Call("get", "/ready", "Whether REST can take payments", "Operation", {200: shapes.Readiness}, open_to_all=True,
         errors=("SERVICE_UNAVAILABLE",)),
)  # fmt: skip


def document(calls: Sequence[Call] = CALLS) -> dict[str, Any]:
    """The whole description, as plain values."""
    outputs = {model for call in calls for model in _answer_models(call)} | {shapes.Error}
    inputs = {model for call in calls for model in (call.body, call.query) if model is not None}
    wanted: list[tuple[type[BaseModel], Mode]] = [(model, "serialization") for model in outputs]
    wanted += [(model, "validation") for model in inputs]
    wanted.sort(key=lambda one: one[0].__name__)
    _, definitions = models_json_schema(wanted, by_alias=True, ref_template=REF)
    schemas: dict[str, Any] = definitions["$defs"]
    queries = {call.query.__name__: schemas.pop(call.query.__name__) for call in calls if call.query is not None}
    for schema in schemas.values():
        if "amount" in schema.get("properties", {}) and schema["properties"]["amount"].get("type") is None:
            schema["properties"]["amount"] = dict(AMOUNT_IN)
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method] = _operation(call, queries)
    return {
        "openapi": OPENAPI,
        "info": {"title": "Payment service", "version": VERSION, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "internal": {"type": "apiKey", "in": "header", "name": "X-Internal-Token"},
            },
        },
    }


def _answer_models(call: Call) -> list[type[BaseModel]]:
    return [model for one in call.answers.values() for model in (one if isinstance(one, list) else [one])]


def _operation(call: Call, queries: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": call.summary, "operationId": _operation_id(call), "tags": [call.tag]}
    if not call.open_to_all:
        operation["security"] = [{"token": []}, {"internal": []}]
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "maxLength": 128}}
        for part in call.path.split("/")
        if part.startswith("{")
    ]
    if call.query is not None:
        parameters += _query_parameters(queries[call.query.__name__])
    parameters += [{"name": flag, "in": "query", "schema": {"type": "boolean"}} for flag in call.flags]
    if call.method == "post" and not call.open_to_all:
        parameters.append(dict(IDEMPOTENCY_KEY))
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        schema = {"$ref": REF.format(model=call.body.__name__)}
        required = any(field.is_required() for field in call.body.model_fields.values())
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    operation["responses"] = _responses(call)
    return operation


def _operation_id(call: Call) -> str:
    words = [part for part in call.path.removeprefix("/api/v1").split("/") if part and not part.startswith("{")]
    return "_".join((call.method, *words, *(["one"] if call.path.endswith("}") else [])))


def _query_parameters(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    parameters = []
    for name, field in schema["properties"].items():
        shape = {key: value for key, value in field.items() if key not in ("title", "default")}
        options = [option for option in shape.pop("anyOf", []) if option.get("type") != "null"]
        if len(options) == 1:
            shape.update(options[0])
        if name in ("startDate", "endDate"):
            shape = dict(MOMENT_IN)
        if field.get("default") is not None:
            shape["default"] = field["default"]
        parameters.append({"name": name, "in": "query", "required": False, "schema": shape})
    return parameters


def _responses(call: Call) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, shape in call.answers.items():
        data: dict[str, Any] = (
            {"type": "array", "items": {"$ref": REF.format(model=shape[0].__name__)}}
            if isinstance(shape, list)
            else {"$ref": REF.format(model=shape.__name__)}
        )
        envelope = {
            "type": "object",
            "properties": {"success": {"const": True}, "data": data},
            "required": ["success", "data"],
            "additionalProperties": False,
        }
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": envelope}},
        }  # fmt: skip
    words = {*call.errors, "INTERNAL_ERROR", "METHOD_NOT_ALLOWED"}
    if not call.open_to_all:
        words |= {"UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED", "SERVICE_UNAVAILABLE"}
    by_status: dict[int, list[str]] = {}
    for word in sorted(words):
        by_status.setdefault(ERRORS[word][0], []).append(word)
    by_status.pop(202, None)
    for status, of_status in sorted(by_status.items()):
        text = "\n".join(f"- `{word}`: {ERRORS[word][1]}" for word in of_status)
        responses[str(status)] = {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": REF.format(model="Error")}}},
        }
    return responses


class _Readable(yaml.SafeDumper):
    """Everything written out where it is used, texts of more lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def as_yaml() -> str:
    """What openapi.yaml holds and GET /api-docs/openapi.yaml answers."""
    head = "# Made by `make api-docs` from the models in web/; do not edit.\n"
    made: str = yaml.dump(_plain(document()), Dumper=_Readable, sort_keys=False, allow_unicode=True, width=120)
    return head + made


def _plain(value: Any) -> Any:
    """Without enums and other subclasses, which YAML would name by their class."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
