"""The API's description as OpenAPI 3.1, made from the models that check bodies and the shapes of the answers.

Room: web. `python -m payment_service.web.api_document` writes openapi.yaml; a test fails when that file is stale, and
another when a route is missing here.
"""

import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from payment_service.core.money import AMOUNT_MINOR_MAX, AMOUNT_TEXT_MAX
from payment_service.web import shapes
from payment_service.web.api_calls import CALLS, Call, Who
from payment_service.web.api_examples import ANSWERED, FAILED, SENT
from payment_service.web.api_words import DESCRIPTION, ERRORS, HEADERS, TAGS

VERSION = "1.0.0"
OPENAPI = "3.1.0"
REF = "#/components/schemas/{model}"
NOT_SUCCESSES_KEPT = (402, 404, 409, 422)
"""Failures that are the same again under an Idempotency-Key."""
HEADER_REF = "#/components/headers/{name}"
JSON = "application/json"
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
AMOUNT_OR_ALL: Mapping[str, Any] = {
    **AMOUNT_IN,
    "description": f"{AMOUNT_IN['description']} Left out: all of it.",
    "anyOf": [*AMOUNT_IN["anyOf"], {"type": "null"}],
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
SECURITY: Mapping[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A user's."},
    "internal": {"type": "apiKey", "in": "header", "name": "X-Internal-Token", "description": "Another service's."},
    "internalKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same by another name."},
    "metrics": {"type": "http", "scheme": "bearer", "description": "METRICS_TOKEN, where it is set."},
}


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
            needed = "amount" in schema.get("required", ())
            schema["properties"]["amount"] = dict(AMOUNT_IN if needed else AMOUNT_OR_ALL)
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
            "headers": {
                name: {"description": text, "schema": {"type": "string"}, "example": example}
                for name, (text, example) in HEADERS.items()
            },
            "securitySchemes": SECURITY,
        },
    }


def _answer_models(call: Call) -> list[type[BaseModel]]:
    return [model for one in call.answers.values() for model in (one if isinstance(one, list) else [one])]


def _operation(call: Call, queries: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": call.summary}
    if call.about:
        operation["description"] = call.about
    operation |= {"operationId": _operation_id(call), "tags": [call.tag]}
    if call.who is not Who.ANYBODY:
        open_too: list[Any] = [{}] if call.who is Who.SCRAPER else []
        operation["security"] = [*open_too, *({scheme: []} for scheme in call.who.value)]
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "maxLength": 128}}
        for part in call.path.split("/")
        if part.startswith("{")
    ]
    if call.query is not None:
        parameters += _query_parameters(queries[call.query.__name__])
    parameters += [
        {"name": flag, "in": "query", "description": text, "schema": {"type": "boolean"}}
        for flag, text in (call.flags or {}).items()
    ]
    if call.is_keyed:
        parameters.append(dict(IDEMPOTENCY_KEY))
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        content: dict[str, Any] = {"schema": {"$ref": REF.format(model=call.body.__name__)}}
        if call.name in SENT:
            content["examples"] = {name: {"value": body} for name, body in SENT[call.name].items()}
        required = any(field.is_required() for field in call.body.model_fields.values())
        operation["requestBody"] = {"required": required, "content": {JSON: content}}
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
        content: dict[str, Any] = {"schema": envelope}
        examples = ANSWERED.get((call.name, status))
        if examples is not None:
            content["examples"] = {
                name: {"value": {"success": True, "data": value}} for name, value in examples.items()
            }
        responses[str(status)] = _response(call, status, HTTPStatus(status).phrase, JSON, content)
    if not call.answers:
        responses["200"] = _response(call, 200, HTTPStatus.OK.phrase, "text/plain", {"schema": {"type": "string"}})
    words = {*call.errors, "INTERNAL_ERROR", "METHOD_NOT_ALLOWED"}
    if call.is_counted:
        words |= {"UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED", "SERVICE_UNAVAILABLE"}
    by_status: dict[int, list[str]] = {}
    for word in sorted(words):
        by_status.setdefault(ERRORS[word][0], []).append(word)
    for status, of_status in sorted(by_status.items()):
        text = "\n".join(f"- `{word}`: {ERRORS[word][1]}" for word in of_status)
        content = {"schema": {"$ref": REF.format(model="Error")}}
        example = FAILED.get(status)
        if example is not None and example["code"] in of_status:
            content["example"] = example
        responses[str(status)] = _response(call, status, text, JSON, content)
    return responses


def _response(call: Call, status: int, text: str, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    names = ["X-Request-ID"]
    if call.is_counted and status != HTTPStatus.UNAUTHORIZED:
        names += ["RateLimit", "RateLimit-Policy"]
    if status in (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        names.append("Retry-After")
    if call.is_keyed and (status < HTTPStatus.MULTIPLE_CHOICES or status in NOT_SUCCESSES_KEPT):
        names.append("Idempotent-Replayed")
    headers = {name: {"$ref": HEADER_REF.format(name=name)} for name in names}
    return {"description": text, "headers": headers, "content": {kind: content}}


class _Readable(yaml.SafeDumper):
    """Everything written out where it is used, texts of more lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def as_yaml() -> str:
    """What openapi.yaml holds. Takes seconds."""
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
