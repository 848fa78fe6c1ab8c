"""`payment-service`: Faust's commands for our app (agents, tables, send, reset ...) and ours beside them.

Room: cli. The entry point of the program.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import click

from payment_service.cli.listing import listed_in_sections
from payment_service.cli.outcome import Failed, explained

PROGRAM = "payment-service"
APP = "payment_service.app"
COMMANDS: Mapping[str, str] = {
    "worker": "setup:worker",
    "dev": "setup:dev",
    "demo": "demo:demo",
    "migrate": "setup:migrate",
    "doctor": "doctor:doctor",
    "token": "setup:token",
    "payments": "payments:payments",
    "reconcile": "reconcile:reconcile",
    "table": "tables:table",
    "topics": "topics:topics",
    "dead-letters": "dead_letters:dead_letters",
    "audit": "audit:audit",
    "webhooks": "webhooks:webhooks",
    "events": "events:events",
    "keys": "keys:keys",
    "import-legacy": "legacy:import_legacy",
    "provider-sim": "provider_sim.command:provider_sim",
    "completion": "setup:completion",
}
"""Name -> module:attribute in cli/. `worker` and `completion` are Faust's names with our meaning."""
HELP = """Payments for online shops: REST and Kafka in front of payment providers.

Start here: `payment-service dev` runs everything on this machine, `payment-service demo` sends a shop's traffic
through it. Settings come from the environment and from .env in the working directory.

Exit codes: 0 done, 1 nothing found or a check failed, 2 used wrongly, 3 something needed does not answer.
"""


def program() -> click.Group:
    """Faust's own click group with our commands in it."""
    from faust.cli.faust import cli as group

    for name, place in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"payment_service.cli.{module}"), attribute)
        group.add_command(command, name)
    group.help = HELP
    listed_in_sections(group)
    group.params = [param for param in group.params if param.name != "version"]
    click.version_option(version(PROGRAM), prog_name=PROGRAM)(group)
    return group


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not any(argument in ("-A", "--app") or argument.startswith("--app=") for argument in given):
        given = ["-A", APP, *given]
    try:
        program().main(args=given, prog_name=PROGRAM)
    except Exception as error:  # from Faust's own commands; ours explain themselves
        failed = explained(error) or _of_faust(error)
        if failed is None or "--debug" in given:
            raise
        failed.show()
        sys.exit(failed.exit_code)


def _of_faust(error: Exception) -> Failed | None:
    """Kafka's errors by their family's name: aiokafka is not imported for a line of text."""
    if any(cls.__name__ == "KafkaError" for cls in type(error).__mro__):
        return Failed(f"the broker is away: {type(error).__name__}", 3)
    return None


if __name__ == "__main__":
    main()
