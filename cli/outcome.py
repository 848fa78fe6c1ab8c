"""How a command ends: exit codes that mean something, and one helpful line instead of a traceback.

Room: cli.

0  done, found, all is well
1  found nothing, or a check failed, or a rule says no
2  used wrongly: arguments or settings
3  something it needs (broker, database, service) does not answer; the same again may work later
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from payment_service.core.errors import Malformed, OutcomeUnknown, PaymentError, Refused, Unavailable

OK, NOTHING, USAGE, UNAVAILABLE = 0, 1, 2, 3
WRONG_INPUT = frozenset({"VALIDATION_ERROR", "MALFORMED_JSON"})

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Failed(click.ClickException):
    """Ends the command with its code and one line on stderr."""

    def __init__(self, message: str, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint

    def show(self, file: Any = None) -> None:
        click.secho(f"Error: {self.message}", fg="red", err=True)
        if self.hint:
            click.echo(f"  {self.hint}", err=True)


def explained(error: Exception) -> Failed | None:
    """What to tell of it; None for a bug of ours, whose traceback is the help."""
    if isinstance(error, PaymentError):
        match error:
            case Unavailable():
                return Failed(error.message, UNAVAILABLE, "`payment-service dev` runs everything on this machine.")
            case Refused(fields=fields) if fields or error.code in WRONG_INPUT:
                return Failed(error.message, USAGE)
            case Refused() | Malformed() | OutcomeUnknown():
                return Failed(error.message, NOTHING)
    if type(error).__name__ == "SettingsInvalid":  # of adapters/, which this room may not import
        return Failed(str(error), USAGE, "They are read from the environment and from .env in this folder.")
    if type(error).__name__ == "EmbeddedError":
        return Failed(str(error), UNAVAILABLE)
    if isinstance(error, ConnectionError | TimeoutError):
        return Failed(f"{type(error).__name__}: {error}".rstrip(": "), UNAVAILABLE)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return Failed(f"{where}{error.strerror}", UNAVAILABLE)
    return None


def explaining(command: Callable[Args, Result]) -> Callable[Args, Result]:
    """Turns the errors a command may meet into `Failed`."""

    @functools.wraps(command)
    def inner(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except (
            click.ClickException,
            click.exceptions.Exit,
            click.Abort,
            BrokenPipeError,
        ):  # click ends on these itself
            raise
        except Exception as error:
            failed = explained(error)
            if failed is None:
                raise
            raise failed from error

    return inner


def end(code: int) -> NoReturn:
    raise click.exceptions.Exit(code)
