"""Who sits at the terminal: named in the audit log for whatever a command changes.

Room: cli.
"""

import getpass
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

NAME_MAX = 100


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without such a user
        return ""


def _checked(context: click.Context, _: click.Parameter, value: str) -> str:
    name = value.strip()
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise click.BadParameter(f"say who does this: a name of at most {NAME_MAX} characters")
    return f"operator:{name}"


def operator_option(command: Command) -> Command:
    """Gives the command `operator`, as the audit log's actor."""
    return click.option(
        "--operator", default=_user, callback=_checked, help="Who does this, for the audit log; default: $USER."
    )(command)
