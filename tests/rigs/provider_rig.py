"""What tests/contract/test_providers.py needs to know of a provider. Each has a file `rigs/provider_<name>.py` with
`make_rig()`, an async context manager that gives one of these; its calls must reach no real account."""

from dataclasses import dataclass

from payment_service.core.ports import Provider, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind


@dataclass(frozen=True)
class ProviderRig:
    provider: Provider
    yes: str
    """A one-time token that is charged."""
    no: str
    """One that is declined by the card's bank."""
    no_code: str
    """The decline code it gives."""
    action: str
    """One for which the shopper has to act."""
    error: str | None
    """One that makes the provider answer with a failure of its own. None: nothing does."""
    tells_declines: bool = True
    """False: a means of payment that was declined leaves no trace there, so that a look-up cannot tell it."""


def call_for(
    payment_id: str,
    kind: Kind = Kind.CHARGE,
    number: int = 1,
    amount_minor: int = 1000,
    *,
    provider: str = "MOCK",
    token: str | None = None,
    object_id: str | None = None,
    charge_id: str | None = None,
    manual: bool = False,
) -> ProviderCall:
    return ProviderCall(
        key=f"{payment_id}:{kind.lower()}:{number}",
        kind=kind,
        number=number,
        payment_id=payment_id,
        order_id=f"order-of-{payment_id}",
        provider=provider,
        amount_minor=amount_minor,
        currency="USD",
        capture_method=CaptureMethod.MANUAL if manual else CaptureMethod.AUTOMATIC,
        object_id=object_id,
        object_key=f"{payment_id}:object:1",
        method_token=token,
        charge_id=charge_id,
    )
