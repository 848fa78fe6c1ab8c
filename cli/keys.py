"""`payment-service keys`: after a change of ENCRYPTION_KEY, seal with it what older keys sealed.

Room: cli.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.operators import operator_option
from payment_service.cli.outcome import NOTHING, OK, UNAVAILABLE, Failed, end, explaining
from payment_service.cli.output import console, json_option, moment, print_json, print_table
from payment_service.codecs.times import rfc3339
from payment_service.core.audit import ACCEPTED, AuditEntry
from payment_service.core.audit import OK as DONE
from payment_service.core.errors import Unavailable
from payment_service.core.key_rotation import Kept, KeyRotation, Resealed, SealedRecords
from payment_service.core.ports import AuditLog

UNREADABLE_MAX = 1_000
"""Kept to be shown; more are counted."""
ACTION = "keys.rotate"
INCOMPLETE = "INCOMPLETE"


@dataclass(slots=True)
class Rotated:
    """By column. `left` and `unreadable` are of the last round: what an earlier one left, a later one came back to."""

    named: int = 0
    """Keys in ENCRYPTION_KEYS_OLD; one of a higher number came from JWT_SECRET."""
    rounds: int = 0
    done: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    places: list[str] = field(default_factory=list)
    """Of those that cannot be read, UNREADABLE_MAX."""
    columns: dict[str, None] = field(default_factory=dict)
    topics: Sequence[SealedRecords] = ()
    topics_away: str = ""

    def add(self, step: Resealed, *, dry_run: bool) -> None:
        if step.round != self.rounds:
            self.rounds = step.round
            self.left.clear()
            self.unreadable.clear()
            self.places.clear()
        self.columns[step.column] = None
        self.done[step.column] += step.done
        # What was done only now shows that somebody had sealed it with an older key since the round before.
        self.left[step.column] += step.busy + (step.done if step.round > 1 else 0)
        self.unreadable[step.column] += len(step.unreadable)
        self.places += step.unreadable[: UNREADABLE_MAX - len(self.places)]
        if dry_run:
            self.left[step.column] = 0

    @property
    def incomplete(self) -> bool:
        return bool(self.left.total() or self.unreadable.total())


@click.group(short_help="Change the encryption key.")
def keys() -> None:
    """What ENCRYPTION_KEY has sealed."""


@keys.command()
@click.option("--dry-run", is_flag=True, help="Only tell what it would do.")
@operator_option
@json_option
@explaining
def rotate(dry_run: bool, operator: str, as_json: bool) -> None:
    """Seal with ENCRYPTION_KEY whatever in PostgreSQL an older key sealed, and tell what still needs that one.

    \b
    To change the key:
    1. Make one, and add it to ENCRYPTION_KEYS_OLD of every worker: each can open then what any of them seals.
    2. Make it ENCRYPTION_KEY everywhere, and put the one before it into ENCRYPTION_KEYS_OLD. Where there was none
       (never in production) it came from JWT_SECRET, and opens without being named as long as that stays the same.
    3. Run this, beside the workers. It may be stopped and run again.
    4. When it says that nothing needs the older key any more, take that out of the workers' ENCRYPTION_KEYS_OLD.
    Each change needs the workers started again: they read their settings once.

    `audit verify` goes on to need it, so keep it: what was written under a key can only be checked with that key. Exit
    1 when something is left that could not be sealed anew.
    """
    rotated = asyncio.run(_rotate(operator, dry_run=dry_run, quiet=as_json))
    if as_json:
        print_json(_view(rotated, dry_run=dry_run))
    else:
        _show(rotated, dry_run=dry_run)
    if rotated.topics_away and not rotated.incomplete:
        raise Failed(f"without what is in topics: {rotated.topics_away}", UNAVAILABLE)
    end(NOTHING if rotated.incomplete else OK)


async def _rotate(operator: str, *, dry_run: bool, quiet: bool) -> Rotated:
    settings = service.load_settings()
    rotated = Rotated(named=len(settings.encryption_keys_old_given))
    async with service.open_rotation(settings) as rotation:
        if dry_run:
            await _reseal(rotation, rotated, dry_run=True, quiet=quiet)
        else:
            async with service.open_audit(settings) as audit, _audited(audit, operator, rotated):
                await _reseal(rotation, rotated, dry_run=False, quiet=quiet)
        try:
            rotated.topics = await rotation.in_topics()
        except Unavailable as error:
            rotated.topics_away = error.message
    return rotated


@asynccontextmanager
async def _audited(audit: AuditLog, operator: str, rotated: Rotated) -> AsyncIterator[None]:
    """Told before anything is done, and at its end: one that was killed is seen by the end that is missing."""
    audit.record(AuditEntry(_now_ms(), ACTION, ACCEPTED, operator))
    await audit.flush()
    yield
    told = [f"{column} {count}" for column, count in rotated.done.items() if count]
    told += [f"left {rotated.left.total()}", f"unreadable {rotated.unreadable.total()}"]
    result = INCOMPLETE if rotated.incomplete else DONE
    audit.record(AuditEntry(_now_ms(), ACTION, result, operator, detail=", ".join(told)))
    await audit.flush()


async def _reseal(rotation: KeyRotation, rotated: Rotated, *, dry_run: bool, quiet: bool) -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), disable=quiet) as progress:
        bars: dict[str, Any] = {}
        async with aclosing(rotation.reseal(dry_run=dry_run)) as steps:
            async for step in steps:
                rotated.add(step, dry_run=dry_run)
                name = step.column if step.round == 1 else f"{step.column}, round {step.round}"
                if name not in bars:
                    # A column without a row is done, which a total of 0 would show as 0 %.
                    bars[name] = progress.add_task(name, total=step.blocks_total or 1)
                progress.advance(bars[name], step.blocks if step.blocks_total else 1)


def _view(rotated: Rotated, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dryRun": dry_run,
        "ok": not rotated.incomplete,
        "rounds": rotated.rounds,
        "columns": [
            {"column": it, "resealed": rotated.done[it], "left": rotated.left[it], "unreadable": rotated.unreadable[it]}
            for it in rotated.columns
        ],
        "unreadable": rotated.places,
        "topics": None if rotated.topics_away else [
            {"topic": it.topic, "key": it.key, "records": it.records, "newestAt": rfc3339(it.newest_ms),
             "kept": it.kept, "goneBy": rfc3339(it.gone_ms) if it.gone_ms is not None else None}
            for it in rotated.topics
        ],
        "neededUntil": _needed_until(rotated),
    }  # fmt: skip


def _show(rotated: Rotated, *, dry_run: bool) -> None:
    print_table(
        "Sealed values in PostgreSQL",
        ("column", "would be sealed anew" if dry_run else "sealed anew", "left", "unreadable"),
        [(it, rotated.done[it], rotated.left[it], rotated.unreadable[it]) for it in rotated.columns],
        right=["would be sealed anew", "sealed anew", "left", "unreadable"],
    )
    if rotated.topics:
        print_table(
            "Records that stay sealed with an older key", ("topic", "key", "records", "newest (UTC)", "gone by (UTC)"),
            [
                (it.topic, _key(it.key, rotated.named), it.records, moment(rfc3339(it.newest_ms)), _gone(it))
                for it in rotated.topics
            ],
            right=["records"],
        )  # fmt: skip
    for place in rotated.places:
        click.echo(f"no key opens {place}", err=True)
    if rotated.unreadable.total() > len(rotated.places):
        click.echo(f"and {rotated.unreadable.total() - len(rotated.places)} more", err=True)
    if rotated.left.total():
        click.echo(
            f"After {rotated.rounds} rounds values were still sealed with an older key: a worker goes on using it, or "
            "rows were busy. Give every worker the present ENCRYPTION_KEY, and run this again.",
            err=True,
        )
    click.echo(_verdict(rotated))


def _key(number: int, named: int) -> str:
    if number > named:
        return "from JWT_SECRET"
    return f"{number} of ENCRYPTION_KEYS_OLD" if number else "none of ours"


def _gone(it: SealedRecords) -> str:
    if it.gone_ms is not None:
        return moment(rfc3339(it.gone_ms))
    return "never by itself" if it.kept is Kept.FOR_EVER else "the broker does not tell"


def _needed_until(rotated: Rotated) -> str | None:
    """When the last record is gone that ever goes; None where there is none, or where a broker does not tell."""
    if any(it.kept is Kept.NOT_TOLD for it in rotated.topics):
        return None
    gone = [it.gone_ms for it in rotated.topics if it.key and it.gone_ms is not None]
    return rfc3339(max(gone)) if gone else None


def _verdict(rotated: Rotated) -> str:
    if rotated.topics_away or rotated.incomplete:
        return "The older keys stay in ENCRYPTION_KEYS_OLD."
    until = _needed_until(rotated)
    if until is not None:
        return f"Workers need the older keys in ENCRYPTION_KEYS_OLD until {moment(until)} UTC."
    if any(it.kept is Kept.NOT_TOLD for it in rotated.topics):
        return "Workers need the older keys for as long as the broker keeps these records: see its retention."
    return "Nothing that a worker reads is sealed with an older key; `audit verify` still needs it for what is older."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
