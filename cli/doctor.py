"""`payment-service doctor`: what is wrong with this installation, and how to mend it.

Room: cli. Changes nothing, anywhere.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict

import click
from rich.text import Text

from payment_service.cli import service
from payment_service.cli.outcome import NOTHING, OK, end, explaining
from payment_service.cli.output import console, json_option, print_json
from payment_service.core.doctor import Area, Finding, Health, worst_of

STYLES = {Health.OK: "green", Health.WARNING: "yellow", Health.WRONG: "bold red", Health.SKIPPED: "dim"}
WIDTH = max(len(health) for health in Health) + 1


@click.command(short_help="Say what is wrong, and how to mend it.")
@click.option("--only", "areas", multiple=True, type=click.Choice([area.value for area in Area]),
              help="Only this; may be given more than once.")  # fmt: skip
@click.option("--as-production", is_flag=True, help="Judge the settings as production would.")
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@click.option("-q", "--quiet", is_flag=True, help="Without what is well.")
@json_option
@explaining
def doctor(areas: Sequence[str], as_production: bool, strict: bool, quiet: bool, as_json: bool) -> None:
    """Look at the settings, this machine, PostgreSQL, Kafka, the providers, and what is around and waits in them.

    It changes nothing and asks each provider one harmless question. For each thing that is wrong it says how to mend
    it. Run it where a worker runs, with a worker's settings.

    Exit codes: 0 nothing is wrong (there may be warnings), 1 something is.
    """
    chosen = [Area(area) for area in areas] or list(Area)
    findings = asyncio.run(_examined(chosen, as_production=as_production, quiet=quiet, as_json=as_json))
    worst = worst_of(findings)
    if as_json:
        print_json({"ok": worst is not Health.WRONG, "findings": [asdict(it) for it in findings]})
    else:
        _sum_up(findings)
    end(NOTHING if worst is Health.WRONG or (strict and worst is Health.WARNING) else OK)


async def _examined(areas: Sequence[Area], *, as_production: bool, quiet: bool, as_json: bool) -> list[Finding]:
    """Told as each area is done: a broker that does not answer takes its time."""
    findings: list[Finding] = []
    waiting = console(stderr=True)
    with waiting.status("looking ...") as status:
        status.update(f"looking at {areas[0]} ...")
        async with aclosing(service.examine(areas, as_production=as_production)) as parts:
            async for area, found in parts:
                findings += found
                if not as_json:
                    _show(area, [it for it in found if not (quiet and it.health in (Health.OK, Health.SKIPPED))])
                left = areas[areas.index(area) + 1 :]
                if left:
                    status.update(f"looking at {left[0]} ...")
    return findings


def _show(area: Area, found: Sequence[Finding]) -> None:
    if not found:
        return
    screen = console()
    screen.print(Text(area.value, style="bold"))
    for it in found:
        word = it.health.value if it.health is Health.WRONG else it.health.value.lower()
        line = Text(f"  {word:<{WIDTH}} ", style=STYLES[it.health])
        line.append(f"{it.check}: {it.what}", style="dim" if it.health is Health.SKIPPED else "default")
        screen.print(line, soft_wrap=True)
        if it.mend:
            screen.print(Text(f"  {'':<{WIDTH}} mend: {it.mend}", style="cyan"), soft_wrap=True)


def _sum_up(findings: Sequence[Finding]) -> None:
    counts = {health: sum(it.health is health for it in findings) for health in Health}
    if counts[Health.WRONG]:
        click.secho(f"{counts[Health.WRONG]} wrong, {counts[Health.WARNING]} warnings", fg="red", err=True)
    elif counts[Health.WARNING]:
        click.secho(f"nothing wrong, {counts[Health.WARNING]} warnings", fg="yellow", err=True)
    else:
        click.secho("nothing wrong", fg="green", err=True)
