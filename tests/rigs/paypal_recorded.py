"""Bodies as PayPal writes them, from its documentation: tests/contract/providers/paypal/*.json."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from rigs.provider_rig import call_for

from payment_service.adapters.providers.paypal_api import Reply
from payment_service.core.ports import ProviderCall
from payment_service.core.terms import Kind

FOLDER = Path(__file__).resolve().parent.parent / "contract" / "providers" / "paypal"
ORDER_ID = "5O190127TN364715T"


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text("utf-8")


def recorded(name: str) -> Reply:
    """Status and body of an answer."""
    stored = json.loads(_text(name))
    return Reply(stored["status"], stored["body"])


def event(name: str) -> bytes:
    return _text(f"event_{name}").encode()


def names(beginning: str) -> list[str]:
    return sorted(path.stem for path in FOLDER.glob(f"{beginning}*.json"))


def recorded_call(kind: Kind = Kind.CHARGE, number: int = 1, **more: Any) -> ProviderCall:
    """The call that the recorded answers are about: 10.00 USD of payment pay_recorded."""
    manual = kind in (Kind.AUTHORIZE, Kind.CAPTURE)
    fields = {"object_id": ORDER_ID, "manual": manual, "provider": "PAYPAL"}
    call = call_for("pay_recorded", kind, number, **(fields | more))
    return call if call.method_token is None else replace(call, payment_method_id="pmt_recorded")
