"""Commands around the service itself: worker, dev, migrate, token, completion.

Room: cli.
"""

import asyncio
import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from payment_service.cli import service
from payment_service.cli.outcome import NOTHING, OK, Failed, end, explaining
from payment_service.cli.output import console, json_option, print_json

TTL_H_MAX = 24 * 365
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PROGRAM = "payment-service"


@click.command(short_help="Run the service.")
@click.option("-l", "--loglevel", type=click.Choice(LOG_LEVELS, case_sensitive=False), help="Instead of LOG_LEVEL.")
@explaining
def worker(loglevel: str | None) -> None:
    """Run the service: REST, streams, effects and the publisher, until SIGTERM.

    Ends by itself only when a part of it cannot go on (exit 1), so run it under something that starts it again.
    """
    _run(loglevel, dev=False)


@click.command(short_help="Run everything on this machine.")
@click.option("-l", "--loglevel", type=click.Choice(LOG_LEVELS, case_sensitive=False), help="Instead of LOG_LEVEL.")
@explaining
def dev(loglevel: str | None) -> None:
    """Run everything on this machine: embedded broker and PostgreSQL, migrations, the worker."""
    _run(loglevel, dev=True)


def _run(loglevel: str | None, *, dev: bool) -> None:
    settings = service.load_settings()
    if loglevel is not None:
        settings = settings.model_copy(update={"log_level": loglevel.upper()})
    service.prepare_logging(settings)
    warn = console(stderr=True)
    for warning in settings.warnings:
        warn.print(f"[yellow]warning:[/] {warning}")
    end(service.run_dev(settings) if dev else service.run_worker(settings))


@click.command(short_help="Bring the database up to date.")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if a migration is missing.")
@json_option
@explaining
def migrate(check: bool, as_json: bool) -> None:
    """Bring the database's tables up to this version, as MIGRATION_DATABASE_URL (else DATABASE_URL)."""
    settings = service.load_settings()
    names = list(asyncio.run(service.pending_migrations(settings) if check else service.migrate(settings)))
    if as_json:
        print_json({"missing" if check else "applied": names})
    else:
        for name in names:
            click.echo(f"{'missing' if check else 'applied'}  {name}")
        if not names:
            click.echo("The database is up to date.")
    end(NOTHING if check and names else OK)


@click.command(short_help="Print a bearer token for trying things.")
@click.option("--user", required=True, help="Whose token it is.")
@click.option("--role", "roles", multiple=True, help="admin, service, ...; may be given more than once.")
@click.option("--ttl-h", type=click.FloatRange(0, TTL_H_MAX, min_open=True), default=24.0, show_default=True,
              help="How many hours it is valid.")  # fmt: skip
@json_option
@explaining
def token(user: str, roles: tuple[str, ...], ttl_h: float, as_json: bool) -> None:
    """Print a bearer token for a user, to try the REST API with. Refused in production.

    TOKEN=$(payment-service token --user u1); curl -H "Authorization: Bearer $TOKEN" ...
    """
    ttl_s = max(1, round(ttl_h * 3600))
    made = service.make_token(service.load_settings(), user, roles, ttl_s)
    if as_json:
        print_json({"token": made, "userId": user, "roles": list(roles), "expiresInS": ttl_s})
    else:
        click.echo(made)


@click.command(short_help="Print shell completion.")
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@explaining
def completion(context: click.Context, shell: str | None) -> None:
    """Print what a shell needs to complete our commands.

    \b
    bash:  eval "$(payment-service completion bash)"
    zsh:   eval "$(payment-service completion zsh)"
    fish:  payment-service completion fish | source
    """
    name = shell or Path(os.environ.get("SHELL", "bash")).name
    found = get_completion_class(name)
    if found is None:
        raise Failed(f"no completion for the shell {name!r}", 2, "Name one: bash, zsh or fish.")
    group = context.find_root().command
    click.echo(found(group, {}, PROGRAM, complete_variable()).source())


def complete_variable() -> str:
    return f"_{PROGRAM}_COMPLETE".replace("-", "_").upper()
