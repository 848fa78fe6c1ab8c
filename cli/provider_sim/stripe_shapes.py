"""New Stripe objects with the fields their API shows (docs.stripe.com/api, version 2026-10-28.endive).

Room: cli/provider_sim. Pure. Names that begin with `_` are the simulator's own.
"""

from collections.abc import Mapping
from typing import Any

from payment_service.cli.provider_sim.stripe_cards import CARDS, details
from payment_service.cli.provider_sim.world import Thing, digest

API_VERSION = "2026-10-28.endive"


def _thing(kind: str, object_id: str, now_ms: int, **more: Any) -> Thing:
    return {"id": object_id, "object": kind, "created": now_ms // 1000, "livemode": False, **more}


def payment_intent(object_id: str, now_ms: int, amount: int, currency: str, **given: Any) -> Thing:
    return _thing(
        "payment_intent", object_id, now_ms,
        amount=amount, amount_capturable=0, amount_details={"tip": {}}, amount_received=0, application=None,
        application_fee_amount=None, automatic_payment_methods=None, canceled_at=None, cancellation_reason=None,
        capture_method="automatic_async", client_secret=secret_of(object_id), confirmation_method="automatic",
        currency=currency, customer=None, description=None, last_payment_error=None, latest_charge=None,
        metadata={}, next_action=None, on_behalf_of=None, payment_method=None,
        payment_method_configuration_details=None,
        payment_method_options={"card": {"installments": None, "network": None, "request_three_d_secure": "automatic"}},
        payment_method_types=["card"], processing=None, receipt_email=None, review=None, setup_future_usage=None,
        shipping=None, source=None, statement_descriptor=None, statement_descriptor_suffix=None,
        status="requires_payment_method", transfer_data=None, transfer_group=None,
        _return_url=None, _key=None, _due_ms=None, _changed_ms=now_ms,
    ) | given  # fmt: skip


def secret_of(object_id: str) -> str:
    return f"{object_id}_secret_{digest('secret', object_id)}"


def charge(object_id: str, now_ms: int, intent: Mapping[str, Any], method: Mapping[str, Any], **given: Any) -> Thing:
    """Succeeded and captured, unless said otherwise."""
    card = method["card"]
    return _thing(
        "charge", object_id, now_ms,
        amount=intent["amount"], amount_captured=intent["amount"], amount_refunded=0, application=None,
        application_fee=None, application_fee_amount=None, balance_transaction="txn_" + digest(object_id),
        billing_details=method["billing_details"], calculated_statement_descriptor="SIM", captured=True,
        currency=intent["currency"], customer=intent["customer"], description=intent["description"], disputed=False,
        failure_balance_transaction=None, failure_code=None, failure_message=None, fraud_details={},
        metadata=dict(intent["metadata"]), on_behalf_of=None,
        outcome={"network_status": "approved_by_network", "reason": None, "risk_level": "normal", "risk_score": 1,
                 "seller_message": "Payment complete.", "type": "authorized"},
        paid=True, payment_intent=intent["id"], payment_method=method["id"],
        payment_method_details={"type": "card", "card": {name: card[name] for name in (
            "brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet")}},
        receipt_email=None, receipt_number=None, receipt_url=None, refunded=False, review=None, shipping=None,
        source=None, source_transfer=None, statement_descriptor=None, statement_descriptor_suffix=None,
        status="succeeded", transfer_data=None, transfer_group=None, _card=method["_card"], _changed_ms=now_ms,
    ) | given  # fmt: skip


def refund(object_id: str, now_ms: int, of: Mapping[str, Any], amount: int, **given: Any) -> Thing:
    made = _thing(
        "refund", object_id, now_ms,
        amount=amount, balance_transaction="txn_" + digest(object_id), charge=of["id"], currency=of["currency"],
        destination_details={"card": {"reference_status": "pending", "reference_type": "acquirer_reference_number",
                                      "type": "refund"}, "type": "card"},
        metadata={}, payment_intent=of["payment_intent"], reason=None, receipt_number=None,
        source_transfer_reversal=None, status="succeeded", transfer_reversal=None, _key=None, _due_ms=None,
    ) | given  # fmt: skip
    del made["livemode"]  # a refund has none
    return made


def dispute(object_id: str, now_ms: int, of: Mapping[str, Any], amount: int, reason: str) -> Thing:
    return _thing(
        "dispute", object_id, now_ms,
        amount=amount, balance_transactions=[], charge=of["id"], currency=of["currency"],
        enhanced_eligibility_types=[], evidence={}, evidence_details={"due_by": now_ms // 1000 + 7 * 86_400,
        "has_evidence": False, "past_due": False, "submission_count": 0}, is_charge_refundable=False, metadata={},
        payment_intent=of["payment_intent"], reason=reason, status="needs_response",
    )  # fmt: skip


def payment_method(object_id: str, now_ms: int, card_name: str, **given: Any) -> Thing:
    return _thing(
        "payment_method", object_id, now_ms,
        allow_redisplay="unspecified",
        billing_details={"address": {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None,
                                     "state": None}, "email": None, "name": None, "phone": None, "tax_id": None},
        card=details(CARDS[card_name]), customer=None, metadata={}, type="card", _card=card_name, _used=False,
    ) | given  # fmt: skip


def customer(object_id: str, now_ms: int, **given: Any) -> Thing:
    return _thing(
        "customer", object_id, now_ms,
        address=None, balance=0, currency=None, default_source=None, delinquent=False, description=None, email=None,
        invoice_settings={"custom_fields": None, "default_payment_method": None, "footer": None,
                          "rendering_options": None},
        metadata={}, name=None, phone=None, preferred_locales=[], shipping=None, tax_exempt="none", test_clock=None,
    ) | given  # fmt: skip


def setup_intent(object_id: str, now_ms: int, **given: Any) -> Thing:
    return _thing(
        "setup_intent", object_id, now_ms,
        application=None, automatic_payment_methods=None, cancellation_reason=None,
        client_secret=secret_of(object_id), customer=None, description=None, flow_directions=None,
        last_setup_error=None, latest_attempt=None, mandate=None, metadata={}, next_action=None, on_behalf_of=None,
        payment_method=None, payment_method_options={"card": {"mandate_options": None, "network": None,
        "request_three_d_secure": "automatic"}}, payment_method_types=["card"], single_use_mandate=None,
        status="requires_payment_method", usage="off_session", _return_url=None, _due_ms=None,
    ) | given  # fmt: skip


def account(now_ms: int) -> Thing:
    return {
        "id": "acct_providersim", "object": "account", "business_type": "company", "charges_enabled": True,
        "country": "US", "created": now_ms // 1000, "default_currency": "usd", "details_submitted": True,
        "email": "sim@example.com", "metadata": {}, "payouts_enabled": True, "type": "standard",
    }  # fmt: skip


def event(object_id: str, now_ms: int, kind: str, thing: Thing, key: str | None, version: str) -> Thing:
    return {
        "id": object_id, "object": "event", "api_version": version, "created": now_ms // 1000,
        "data": {"object": thing}, "livemode": False, "pending_webhooks": 1,
        "request": {"id": "req_" + digest(object_id) if key is not None else None, "idempotency_key": key},
        "type": kind,
    }  # fmt: skip


def listing(url: str, things: list[Thing], *, has_more: bool) -> Thing:
    return {"object": "list", "data": things, "has_more": has_more, "url": url}
