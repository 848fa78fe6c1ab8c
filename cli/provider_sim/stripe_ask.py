"""What Stripe is asked, and how it says no: form fields in bracket notation in, errors as bodies out.

Room: cli/provider_sim. docs.stripe.com/api/errors, docs.stripe.com/error-low-level.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from payment_service.cli.provider_sim.door import Reply
from payment_service.cli.provider_sim.world import Thing

FIELDS_MAX = 500
"""Of one form; ours have a dozen."""
METADATA_KEYS_MAX, METADATA_NAME_MAX, METADATA_VALUE_MAX = 50, 40, 500
"""docs.stripe.com/api/metadata"""


class StripeError(Exception):
    """Ends the request with `status`. `began`: the work had begun, so it is kept under the idempotency key; a wrong
    parameter is not (docs.stripe.com/api/idempotent_requests)."""

    def __init__(self, status: int, kind: str, message: str, *, began: bool = False, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.began = began
        self.body = {"error": {"type": kind, "message": message, **more}}


class NeverAnswers(Exception):
    """Nothing was done and nothing will be said."""


def invalid(message: str, param: str | None = None, code: str | None = None, **more: Any) -> StripeError:
    named: Thing = {name: value for name, value in (("param", param), ("code", code)) if value is not None}
    return StripeError(400, "invalid_request_error", message, **named, **more)


def missing(what: str, object_id: str, param: str = "id") -> StripeError:
    return StripeError(
        404, "invalid_request_error", f"No such {what}: '{object_id}'", code="resource_missing", param=param
    )


def trouble(status: int, why: str) -> Reply:
    """Not from an operation: the request was not looked at, or the answer is to be a 500."""
    kinds = {400: "invalid_request_error", 429: "invalid_request_error"}
    error: Thing = {"type": kinds.get(status, "api_error"), "message": why}
    if status == 429:
        error["code"] = "rate_limit"
    return Reply(status, {"error": error})


@dataclass(slots=True)
class Ask:
    """One request. The endpoint sets `moves_money` when it comes to that."""

    params: Thing
    match: Mapping[str, str]
    key: str | None
    version: str
    now_ms: int
    moves_money: bool = False
    expand: list[str] = field(default_factory=list)

    def only(self, names: Collection[str]) -> None:
        """Raises StripeError for a parameter that the endpoint does not know."""
        for name in self.params:
            if name not in names:
                raise invalid(f"Received unknown parameter: {name}", name, "parameter_unknown")

    def text(self, name: str) -> str | None:
        value = self.params.get(name)
        if value is not None and not isinstance(value, str):
            raise invalid(f"Invalid string: {name}", name)
        return value or None

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
        return value

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
            raise invalid(f"Invalid integer: {value[:40]}", name, "parameter_invalid_integer")
        return int(value)

    def flag(self, name: str) -> bool:
        value = self.text(name)
        if value not in (None, "true", "false"):
            raise invalid(f"Invalid boolean: {name}", name)
        return value == "true"

    def table(self, name: str) -> Thing:
        value = self.params.get(name, {})
        if value == "":
            return {}
        if not isinstance(value, dict):
            raise invalid(f"Invalid object: {name}", name, "parameter_invalid_object")
        return value

    def metadata(self, before: Mapping[str, str] | None = None) -> dict[str, str]:
        """Merged into what was there; an empty value takes a key away."""
        given = self.table("metadata")
        if len(given) > METADATA_KEYS_MAX:
            raise invalid(f"You can have up to {METADATA_KEYS_MAX} keys.", "metadata")
        for name, value in given.items():
            if len(name) > METADATA_NAME_MAX or not isinstance(value, str) or len(value) > METADATA_VALUE_MAX:
                raise invalid("Metadata values can have up to 500 characters.", f"metadata[{name[:40]}]")
        merged = {**(before or {}), **given}
        return {name: value for name, value in merged.items() if value != ""}


def parsed(form: str) -> Thing:
    """`a[b][c]=1`, `a[]=1`, `a[0]=1`. Raises StripeError."""
    fields: Thing = {}
    try:
        pairs = parse_qsl(form, keep_blank_values=True, strict_parsing=bool(form), max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise invalid("Invalid request body: it is not form-encoded") from error
    for name, value in pairs:
        head, _, rest = name.partition("[")
        path = [head, *(part.removesuffix("]") for part in rest.split("["))] if rest else [head]
        _set(fields, path, value)
    return fields


def _set(fields: Thing, path: list[str], value: str) -> None:
    at = fields
    for number, name in enumerate(path[:-1]):
        if path[number + 1] == "":  # `name[]`: a list of texts
            at.setdefault(name, []).append(value)
            return
        inner = at.setdefault(name, {})
        if not isinstance(inner, dict):
            raise invalid(f"Invalid object: {path[0]}", path[0])
        at = inner
    at[path[-1]] = value


def listed(value: Any) -> list[str]:
    """A list however it was written: `expand[]=a` or `expand[0]=a`."""
    return [str(one) for one in (value.values() if isinstance(value, dict) else value or [])]
