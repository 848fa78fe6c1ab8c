"""How `payment-service --help` lists its commands, and what it says to a word that is none of them.

Room: cli.
"""

import difflib
from collections.abc import Mapping, Sequence

import click

SECTIONS: Mapping[str, Sequence[str]] = {
    "Run": ("dev", "worker", "demo", "migrate", "provider-sim"),
    "Find out": ("doctor", "payments", "reconcile", "webhooks", "dead-letters", "audit", "table", "topics"),
    "Change": ("events", "keys", "import-legacy", "token", "completion"),
}
FAUST = "Faust's own"
CLOSE_MAX = 3
CLOSENESS_MIN = 0.7


def listed_in_sections(group: click.Group) -> None:
    """For this group from now on; commands that are in no section are Faust's."""
    if "format_commands" in vars(group):  # it is one object, however often it is asked for
        return
    resolve = group.resolve_command
    ours = {name for names in SECTIONS.values() for name in names}

    def format_commands(context: click.Context, formatter: click.HelpFormatter) -> None:
        others = sorted(set(group.list_commands(context)) - ours)
        for title, names in (*SECTIONS.items(), (FAUST, others)):
            found = [(name, group.get_command(context, name)) for name in names]
            rows = [(name, it.get_short_help_str(limit=70)) for name, it in found if it is not None and not it.hidden]
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(
        context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return resolve(context, arguments)
        except click.UsageError as error:
            close = difflib.get_close_matches(arguments[0], group.list_commands(context), CLOSE_MAX, CLOSENESS_MIN)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(close)}?", context) from None

    group.format_commands = format_commands  # type: ignore[method-assign, assignment]
    group.resolve_command = resolve_command  # type: ignore[method-assign, assignment]
