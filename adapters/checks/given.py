"""The settings: what would stop a start, what works otherwise than somebody may believe.

Room: adapters/checks. Pure.
"""

from collections.abc import Sequence

from payment_service.adapters.settings import Settings
from payment_service.adapters.settings_rules import problems_of, weakness_of
from payment_service.core.doctor import Area, Doctor, Finding

_RANDOM = "make one: openssl rand -hex 32"
_STRIPE = "Stripe's dashboard, Developers, "
_PAYPAL = "PayPal's dashboard, Apps & Credentials"
MENDS = {
    "DATABASE_URL": "postgresql://USER:PASSWORD@HOST:5432/DATABASE",
    "MIGRATION_DATABASE_URL": "the same, with the role that owns the tables",
    "KAFKA_BROKERS": "host:port,host:port of your brokers",
    "JWT_SECRET": _RANDOM + "; whoever signs the users' tokens needs the same",
    "ENCRYPTION_KEY": _RANDOM + "; where values are sealed already go on with their key (`keys rotate`)",
    "ENCRYPTION_KEYS_OLD": "exactly the keys that were ENCRYPTION_KEY before, separated by commas",
    "INTERNAL_TOKENS": _RANDOM + " and give the other service the same; here sha256:HEX is enough",
    "METRICS_TOKEN": _RANDOM,
    "ORDER_SERVICE_TOKEN": "the token that the order service accepts",
    "STRIPE_SECRET_KEY": _STRIPE + "API keys; test and live keys are never mixed",
    "STRIPE_WEBHOOK_SECRET": _STRIPE + "Webhooks, the endpoint's signing secret (whsec_...)",
    "PAYPAL_CLIENT_ID": _PAYPAL,
    "PAYPAL_CLIENT_SECRET": _PAYPAL,
    "PAYPAL_WEBHOOK_ID": _PAYPAL + ", the app's webhook, its id",
    "PAYPAL_MODE": "PAYPAL_MODE=live with https://api-m.paypal.com, or sandbox with its own address and keys",
    "PAYMENT_PROVIDER": "PAYMENT_PROVIDER=stripe or paypal, with its keys",
    "REFUND_ROLES": "REFUND_ROLES=admin,service (owner lets payers refund themselves)",
    "PUBLIC_URL": "the https:// address at which callers reach the service",
}
"""By the first name of a line of settings_rules.py."""
ANY_MEND = "see env.txt, which says what each setting is for"


def of_settings(settings: Settings, problems: Sequence[str], *, as_production: bool) -> list[Finding]:
    """`problems`: what stops the start. `as_production`: also what would stop it there."""
    doctor, found = Doctor(Area.SETTINGS), []
    lines = list(problems)
    if as_production and not settings.is_production:
        lines += [
            it for it in problems_of(settings.model_copy(update={"environment": "production"})) if it not in lines
        ]
    for line in lines:
        name, _, what = line.partition(": ")
        found.append(doctor.wrong(name, what, MENDS.get(name.partition(",")[0], ANY_MEND)))
    named = {line.partition(":")[0] for line in lines}
    for line in settings.warnings:
        name, _, what = line.partition(": ")
        if name not in named:
            found.append(doctor.warning(name, what, MENDS.get(name.partition(",")[0], ANY_MEND)))
            named.add(name)
    for name, secret in (("JWT_SECRET", settings.jwt_secret), ("ENCRYPTION_KEY", settings.encryption_key)):
        weakness = weakness_of(secret) if secret is not None else None
        if weakness and name not in named:
            found.append(doctor.warning(name, f"{weakness}; production refuses it", MENDS[name]))
    found += _webhooks(doctor, settings, named)
    if not problems:
        found.insert(0, doctor.ok("environment", f"{settings.environment}; nothing in the settings stops a start"))
    return found


def _webhooks(doctor: Doctor, settings: Settings, named: set[str]) -> list[Finding]:
    """Outside production these only warn: there a provider may be tried without them."""
    found = []
    for name, configured, secret in (
        ("STRIPE_WEBHOOK_SECRET", settings.stripe_configured, settings.stripe_webhook_secret),
        ("PAYPAL_WEBHOOK_ID", settings.paypal_configured, settings.paypal_webhook_id),
    ):
        if configured and not secret and name not in named:
            what = "is missing: webhooks cannot be verified, so what is decided later is only seen by look-ups"
            found.append(doctor.warning(name, what, MENDS[name]))
    return found
