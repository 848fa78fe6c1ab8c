"""Bodies and query strings -> checked values. Whatever is wrong with them is said by field (422), values never.

Room: web. `amount` stays as it came: core/money.py knows how many decimals a currency has.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from payment_service.core.card_data import NOT_CARD_DATA, card_data_in, has_card_number
from payment_service.core.errors import Malformed, Refused, invalid_field
from payment_service.core.ports import PaymentFilter
from payment_service.core.terms import CaptureMethod, Status
from payment_service.web.endpoint import ORDER_ID_LENGTH_MAX, PAYMENT_ID_LENGTH_MAX
from payment_service.web.services import WebServices
from payment_service.web.tokens import USER_ID_LENGTH_MAX

METADATA_KEYS_MAX = 50
METADATA_BYTES_MAX = 8192
METADATA_DEPTH_MAX = 16
"""The JSON writer stops at 254 levels, and metadata is stored inside other values."""
METHOD_LENGTH_MAX = 255
DESCRIPTION_LENGTH_MAX = 500
REASON_LENGTH_MAX = 255
URL_LENGTH_MAX = 2048
OFFSET_MAX = 10_000
FIELDS_NAMED_MAX = 20
"""Wrong fields that one answer names."""
FIELD_NAME_LENGTH_MAX = 64
DAY_LENGTH = len("2026-01-31")
MOMENT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999."""
_LONG_NUMBER = re.compile(rb"[0-9](?:[ -]?[0-9]){12}")
Model = TypeVar("Model", bound=BaseModel)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(metadata) > METADATA_KEYS_MAX:
        raise ValueError(f"must have at most {METADATA_KEYS_MAX} keys")
    if sum(1 for _ in _levels(metadata)) > METADATA_DEPTH_MAX:
        raise ValueError(f"must be nested at most {METADATA_DEPTH_MAX} levels deep")
    if len(orjson.dumps(metadata)) > METADATA_BYTES_MAX:
        raise ValueError(f"must be at most {METADATA_BYTES_MAX} bytes of JSON")
    return metadata


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise ValueError("must be an address that starts with https:// or http://")
    return text


NO_CONTROLS: dict[str, Any] = {"pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"}
"""What JSON schema can say of `_printable`; which further characters Unicode calls unprintable, it cannot."""
METHOD = "A saved method (`pmt_…`), or a token of the provider, used once."
METADATA = f"Yours: at most {METADATA_KEYS_MAX} keys and {METADATA_BYTES_MAX} bytes of JSON."
WEB_ADDRESS: dict[str, Any] = {"format": "uri", "pattern": "^https?://[^/?#]"}

OrderId = Annotated[
    str,
    Field(min_length=1, max_length=ORDER_ID_LENGTH_MAX, json_schema_extra=NO_CONTROLS),
    AfterValidator(_printable),
]
PaymentId = Annotated[
    str,
    Field(min_length=1, max_length=PAYMENT_ID_LENGTH_MAX, json_schema_extra=NO_CONTROLS),
    AfterValidator(_printable),
]
MethodId = Annotated[
    str, Field(min_length=1, max_length=METHOD_LENGTH_MAX, json_schema_extra=NO_CONTROLS), AfterValidator(_printable)
]
ProviderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,30}$"), AfterValidator(str.upper)]
UserId = Annotated[str, Field(max_length=USER_ID_LENGTH_MAX, json_schema_extra=NO_CONTROLS), AfterValidator(_printable)]
Reason = Annotated[str, Field(max_length=REASON_LENGTH_MAX)]
Metadata = Annotated[dict[str, Any], AfterValidator(_small)]
Address = Annotated[str, Field(max_length=URL_LENGTH_MAX, json_schema_extra=WEB_ADDRESS), AfterValidator(_web_address)]
CurrencyCode = Annotated[
    str, Field(max_length=8, description="ISO 4217 code.", json_schema_extra={"pattern": "^[A-Za-z]{3}$"})
]


class Body(BaseModel):
    """Names are as in JSON, by alias alone."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateBody(Body):
    order_id: OrderId = Field(alias="orderId")
    amount: Any
    currency: CurrencyCode | None = Field(None, description="`USD` if it is not given.")
    provider: ProviderName | None = Field(None, description="`STRIPE`, `PAYPAL` or `MOCK`; else this installation's.")
    payment_method_id: MethodId | None = Field(None, alias="paymentMethodId", description=METHOD)
    description: str | None = Field(None, max_length=DESCRIPTION_LENGTH_MAX)
    capture_method: Literal["automatic", "manual"] | None = Field(
        None, alias="captureMethod", description="`manual` only holds the money, until it is captured."
    )
    metadata: Metadata | None = Field(None, description=METADATA)

    def captured_by(self) -> CaptureMethod:
        return CaptureMethod(self.capture_method or CaptureMethod.AUTOMATIC)


class ProcessBody(Body):
    """The old service took more here; it means nothing now and is ignored."""

    model_config = ConfigDict(extra="ignore")

    payment_intent_id: MethodId | None = Field(
        None, alias="paymentIntentId", description="The provider's object that the front end has confirmed."
    )
    payment_method_id: MethodId | None = Field(None, alias="paymentMethodId", description=METHOD)
    return_url: Address | None = Field(
        None, alias="returnUrl", description="Where the shopper's browser comes back to from 3-D Secure or PayPal."
    )


class CaptureBody(Body):
    amount: Any = None


class CancelBody(Body):
    reason: Reason | None = None


class RefundBody(Body):
    amount: Any = None
    reason: Reason | None = None
    metadata: Metadata | None = Field(None, description=METADATA)


class RefundOfBody(RefundBody):
    payment_id: PaymentId = Field(alias="paymentId")


# --- bodies ----------------------------------------------------------------------------------------------------


async def read_body(request: web.Request, services: WebServices, model: type[Model]) -> Model:
    """No body at all is an empty object. Raises Malformed (400), Refused (413, 422), HTTPRequestTimeout (408)."""
    data = await read_bytes(request, services)
    fields = parse_object(data) if data else {}
    # Ids and an amount are not looked at, so a body of these alone, without a long number, costs a microsecond.
    if not NOT_CARD_DATA.issuperset(fields) or _LONG_NUMBER.search(data):
        refuse_card_data(fields)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from None


def refuse_card_data(fields: Mapping[str, Any]) -> None:
    """Before anything is done with it. Raises Refused (422) that names the field and never what is in it."""
    field = card_data_in(fields)
    if field is not None:
        shown = "body" if has_card_number(field) else field[:FIELD_NAME_LENGTH_MAX]
        raise invalid_field(shown, "must not contain card data: the provider's own elements make a token of it")


async def read_bytes(request: web.Request, services: WebServices) -> bytes:
    try:
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(services.body_timeout_s):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError:
        raise Malformed("the body broke off") from None


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object without text that cannot be stored.

    Doubles are exact enough: an amount that a double cannot hold has more digits than any amount may have.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if "surrogate in string" in str(error):
            raise invalid_field("body", "must not contain half of a surrogate pair") from None
        raise Malformed("the body is not JSON") from None
    if not isinstance(value, dict):
        raise invalid_field("body", "must be a JSON object")
    # Only an escape can put a NUL into JSON, and almost no body has one: the search is a single memory scan.
    if b"\\u0000" in data and any("\x00" in text for level in _levels(value) for text in _texts(level)):
        raise invalid_field("body", "must not contain NUL")
    return value


def _levels(value: Any) -> Iterable[list[Any]]:
    """The values of each level of nesting, outermost first. Not recursive: the input decides how deep it is."""
    level = [value]
    while level:
        yield level
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]


def _texts(level: list[Any]) -> Iterable[str]:
    for value in level:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value


def _invalid(error: ValidationError) -> Refused:
    fields: dict[str, list[str]] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(part) for part in one["loc"])[:FIELD_NAME_LENGTH_MAX] or "body"
        if name in fields or len(fields) < FIELDS_NAMED_MAX:
            fields.setdefault(name, []).append(one["msg"].removeprefix("Value error, "))
    return Refused("some fields are not valid", code="VALIDATION_ERROR", fields=fields)


# --- the list's query string -----------------------------------------------------------------------------------


def _start_ms(text: object) -> object:
    return _moment_ms(text, timedelta(0)) if isinstance(text, str) else text


def _end_ms(text: object) -> object:
    """A bare date includes its whole day."""
    return _moment_ms(text, timedelta(days=1, milliseconds=-1)) if isinstance(text, str) else text


def _moment_ms(text: str, of_day: timedelta) -> int:
    try:
        if len(text) == DAY_LENGTH:
            moment = datetime.combine(date.fromisoformat(text), time(), UTC) + of_day
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        at_ms = round(moment.timestamp() * 1000)
        if at_ms > MOMENT_MS_MAX:
            raise ValueError
        return at_ms
    except (ValueError, OverflowError):
        raise ValueError("must be a date or a date-time, such as 2026-01-31T12:00:00Z") from None


def _upper(text: object) -> object:
    return text.upper() if isinstance(text, str) else text


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


class ListQuery(BaseModel):
    """Not strict: everything in a query string is text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    status: Annotated[Status, BeforeValidator(_upper)] | None = None
    provider: ProviderName | None = None
    user_id: UserId | None = Field(None, alias="userId")
    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=OFFSET_MAX)
    sort_by: Literal["createdAt", "amount", "status"] = Field("createdAt", alias="sortBy")
    sort_order: Annotated[Literal["asc", "desc"], BeforeValidator(_lower)] = Field("desc", alias="sortOrder")
    start_date: Annotated[int, BeforeValidator(_start_ms)] | None = Field(None, alias="startDate")
    end_date: Annotated[int, BeforeValidator(_end_ms)] | None = Field(None, alias="endDate")
    min_amount: float | None = Field(None, ge=0, alias="minAmount")
    max_amount: float | None = Field(None, ge=0, alias="maxAmount")


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """`?sync=true`. Raises Refused for anything but true and false: a misspelt flag must not be a silent no."""
    word = query.get(name, "false").lower()
    if word not in ("true", "false"):
        raise invalid_field(name, "must be true or false")
    return word == "true"


def read_list_query(query: Mapping[str, str]) -> PaymentFilter:
    """A parameter without a value counts as not given. Raises Refused (422)."""
    try:
        asked = ListQuery.model_validate({name: value for name, value in query.items() if value})
    except ValidationError as error:
        raise _invalid(error) from None
    return PaymentFilter(
        user_id=asked.user_id,
        status=asked.status,
        provider=asked.provider,
        created_from_ms=asked.start_date,
        created_to_ms=asked.end_date,
        amount_min=asked.min_amount,
        amount_max=asked.max_amount,
        sort_by=asked.sort_by,
        descending=asked.sort_order == "desc",
        limit=asked.limit,
        offset=asked.offset,
    )
