"""Bodies as Stripe writes them, from its documentation: tests/contract/providers/stripe/*.json."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from rigs.provider_rig import call_for

from payment_service.adapters.providers.stripe_api import Reply
from payment_service.core.ports import ProviderCall
from payment_service.core.terms import Kind

FOLDER = Path(__file__).resolve().parent.parent / "contract" / "providers" / "stripe"


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
    fields = {"token": "tok_visa", "object_id": "pi_3Recorded", "manual": kind in (Kind.AUTHORIZE, Kind.CAPTURE)}
    return call_for("pay_recorded", kind, number, provider="STRIPE", **(fields | more))
