"""The body that saves a way to pay, as it is sent today and as the old service took it.

Room: web.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from payment_service.core.card_data import has_card_number
from payment_service.web.bodies import Address, Body, MethodId, ProviderName

TYPES = {"CREDIT_CARD": "card", "DEBIT_CARD": "card", "CARD": "card", "PAYPAL": "paypal"}
"""What it is also called."""


def _of_today(word: Any) -> Any:
    return TYPES.get(word.upper(), word) if isinstance(word, str) else word


def _no_card_number(token: str) -> str:
    """A token is the one name in a body that comes from card data, and is sent where a card number would be taken."""
    if has_card_number(token):
        raise ValueError("must not be a card number: the provider's own elements make a token of it")
    return token


class MethodBody(Body):
    """The old service's `last4`, `cardType`, `expiryMonth` and `expiryYear` are taken and ignored: the provider says
    them."""

    type: Annotated[
        Literal["card", "paypal"],
        BeforeValidator(_of_today, json_schema_input_type=Literal["card", "paypal", "CREDIT_CARD", "DEBIT_CARD"]),
    ]
    provider: ProviderName
    token: Annotated[MethodId, AfterValidator(_no_card_number)] | None = Field(
        None,
        description="Made by the provider's own elements. Also taken as `providerToken`. Without one PayPal asks its"
        " shopper: the answer's `nextAction` leads there. Any other provider needs one.",
    )
    is_default: bool | None = Field(None, alias="isDefault")
    return_url: Address | None = Field(None, alias="returnUrl")
    last4: Any = Field(None, deprecated=True)
    card_type: Any = Field(None, alias="cardType", deprecated=True)
    expiry_month: Any = Field(None, alias="expiryMonth", deprecated=True)
    expiry_year: Any = Field(None, alias="expiryYear", deprecated=True)

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "providerToken" in fields and "token" not in fields:
            return {**{name: value for name, value in fields.items() if name != "providerToken"},
                    "token": fields["providerToken"]}  # fmt: skip
        return fields
