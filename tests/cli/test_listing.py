"""What all commands have in common: where they are listed, --json, help, and what shells complete."""

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from payment_service.cli.listing import FAUST, SECTIONS
from payment_service.cli.main import COMMANDS, program

WITHOUT_JSON = {"worker", "dev", "completion", "provider-sim"}
"""They run until they are stopped, or print what is none."""


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for inner, one in command.commands.items():
            yield from leaves(f"{name} {inner}", one)
    else:
        yield name, command


OURS = dict(leaf for name in COMMANDS for leaf in leaves(name, program().commands[name]))


def test_each_of_our_commands_is_listed_once() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
    told = CliRunner().invoke(program(), ["--help"]).stdout
    places = [told.index(f"{title}:\n") for title in (*SECTIONS, FAUST)]
    assert places == sorted(places)
    assert told.index("\n  agents ") > told.index(f"{FAUST}:")
    assert "Exit codes: 0 done" in told


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_says_what_it_does_and_speaks_to_programs(name: str) -> None:
    command = OURS[name]
    assert command.get_short_help_str(limit=100).endswith("."), name
    options = {option for param in command.params for option in param.opts}
    assert ("--json" in options) is (name not in WITHOUT_JSON), name
    if any("operator" in option for option in options):
        assert "--operator" in options


def test_a_word_that_is_no_command() -> None:
    result = CliRunner().invoke(program(), ["paymets", "list"])
    assert result.exit_code == 2
    assert "Did you mean payments?" in result.stderr
    result = CliRunner().invoke(program(), ["xyzzy"])
    assert (result.exit_code, "Did you mean" in result.stderr) == (2, False)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pay"], ["payments"]),
        (["payments", "re"], ["resolve"]),
        (["doctor", "--on"], ["--only"]),
        (["doctor", "--only", "da"], ["database"]),
        (["import-legacy", "--only", ""], ["payments", "methods", "webhooks"]),
    ],
)
def test_shells_complete(words: list[str], completed: list[str]) -> None:
    """As bash asks: by the environment, of a process of its own."""
    asked = {"COMP_WORDS": " ".join(["payment-service", *words]), "COMP_CWORD": str(len(words))}
    env = {"PATH": os.environ["PATH"], "_PAYMENT_SERVICE_COMPLETE": "bash_complete", **asked}
    run = [sys.executable, "-m", "payment_service.cli.main"]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert [line.removeprefix("plain,") for line in done.stdout.splitlines()] == completed, done.stderr
