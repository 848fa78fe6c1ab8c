"""`payment-service provider-sim`.

Room: cli/provider_sim.
"""

import asyncio
import contextlib
from pathlib import Path

import click

from payment_service.cli.provider_sim.ledger import LedgerInUse
from payment_service.cli.provider_sim.server import serve
from payment_service.cli.provider_sim.world import SimSettings

UNAVAILABLE = 3
"""The exit code of all our commands for something needed that cannot be had."""


@click.command(short_help="Stand in for Stripe, PayPal and the mock.")
@click.option("--port", default=12111, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--ledger", default=Path("provider-sim.jsonl"), show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Everything that happened, one JSON object a line; read again at the start.",
)  # fmt: skip
@click.option("--public-url", help="How a browser reaches it, for approval pages; default http://HOST:PORT.")
@click.option("--webhook-url", help="Where signed events go, as http://127.0.0.1:3005/api/v1/webhooks.")
@click.option("--webhook-secret", default="whsec_provider_sim", show_default=True, help="Signs the events.")
@click.option("--latency-ms", default=0, show_default=True, type=click.IntRange(0), help="Of a call that moves money.")
@click.option("--settle-ms", default=5000, show_default=True, type=click.IntRange(0), help="How long pending lasts.")
@click.option("--paypal-webhook-id", default="SIMULATEDWEBHOOK1", show_default=True, help="PAYPAL_WEBHOOK_ID.")
@click.option("--paypal-token-s", default=32_400, show_default=True, type=click.IntRange(1), help="A token's life.")
@click.option("--seed", default=0, show_default=True, help="Repeats the faults asked for by POST /_sim/faults.")
def provider_sim(
    port: int,
    host: str,
    ledger: Path,
    public_url: str | None,
    webhook_url: str | None,
    webhook_secret: str,
    latency_ms: int,
    settle_ms: int,
    paypal_webhook_id: str,
    paypal_token_s: int,
    seed: int,
) -> None:
    """Stand in for Stripe, PayPal and the mock provider: stateful, on this machine, for tests and demos.

    Point STRIPE_API_BASE, PAYPAL_API_BASE or MOCK_PROVIDER_URL at it. It takes no money, keeps a ledger of every
    movement that survives kill -9, sends signed webhooks, and goes wrong when asked (POST /_sim/faults).
    """
    own = public_url or f"http://{host}:{port}"
    settings = SimSettings(own.rstrip("/"), webhook_secret, latency_ms, settle_ms, seed, webhook_url)
    settings.paypal_webhook_id, settings.paypal_token_s = paypal_webhook_id, paypal_token_s
    runner = asyncio.Runner(loop_factory=_fast_loop())
    try:
        with runner:
            runner.run(serve(settings, ledger, host, port, lambda: click.echo(f"provider-sim on {own}, {ledger}")))
    except (LedgerInUse, OSError) as error:
        failed = click.ClickException(str(error))
        failed.exit_code = UNAVAILABLE
        raise failed from error


def _fast_loop() -> type | None:
    """uvloop where it is there; the simulator must not be what a measurement measures."""
    with contextlib.suppress(ImportError):
        from uvloop import Loop

        return Loop
    return None
