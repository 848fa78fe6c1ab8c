"""`payment-service dead-letters`: messages that could not be taken: look at them, and send them again.

Room: cli. A letter may hold personal data: its value is shown with most fields hidden unless --raw is given, and card
numbers and tokens are hidden always. What is sent again is always the message as it came.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.operators import operator_option
from payment_service.cli.outcome import NOTHING, OK, UNAVAILABLE, Failed, end, explaining
from payment_service.cli.output import console, json_option, moment, print_json, print_table
from payment_service.codecs.letters import outline, plain_text
from payment_service.codecs.times import rfc3339
from payment_service.core.dead_letters import Letter, LetterFilter, LetterPage, Replayed, Sent, checked_name

LIMIT_MAX = 1000
FAILURES_SHOWN_MAX = 50

topic_option = click.option("--topic", help="Only those that came from this topic.")
reason_option = click.option("--reason", help="Only those kept for this reason, such as MALFORMED_JSON.")


@click.group("dead-letters", short_help="Look at messages that failed, send them again.")
def dead_letters() -> None:
    """Messages that could not be taken: look at them, and send them again."""


@dead_letters.command("list")
@topic_option
@reason_option
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="The newest so many.")
@json_option
@explaining
def list_letters(topic: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest last, without what is in them."""
    page = asyncio.run(_find(LetterFilter(topic, reason), limit))
    if as_json:
        print_json([_summary(page, letter) for letter in page.letters])
    elif page.letters:
        print_table(
            "Dead letters",
            ("letter", "at (UTC)", "reason", "error", "came from", "bytes", "sent again"),
            [
                (letter.id, moment(rfc3339(letter.at_ms)), letter.reason, letter.error, letter.source,
                 page.sizes[letter.stamp], _sent_again(page, letter))
                for letter in page.letters
            ],
            right=["bytes"],
            note=f"{len(page.letters)} of {page.total}",
        )  # fmt: skip
    elif not page.away:
        click.echo("No dead letter is like that." if topic or reason else "There are no dead letters.", err=True)
    if page.foreign:
        click.echo(f"{page.foreign} messages in the topic are no letters of this service.", err=True)
    if page.away:
        raise Failed(f"without those of the broker: {page.away}", UNAVAILABLE)
    end(OK if page.letters else NOTHING)


def _sent_again(page: LetterPage, letter: Letter) -> str | None:
    at_ms = page.sent_at_ms.get(letter.stamp)
    return None if at_ms is None else moment(rfc3339(at_ms))


def _summary(page: LetterPage, letter: Letter) -> Mapping[str, Any]:
    at_ms = page.sent_at_ms.get(letter.stamp)
    return _fields(letter) | {
        "bytes": page.sizes[letter.stamp], "sentAgainAt": None if at_ms is None else rfc3339(at_ms),
    }  # fmt: skip


def _fields(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id, "at": rfc3339(letter.at_ms), "reason": letter.reason, "error": letter.error,
        "sourceTopic": letter.topic, "sourcePartition": letter.partition, "sourceOffset": letter.offset,
        "replayOf": letter.replay_of,
    }  # fmt: skip


@dead_letters.command("show")
@click.argument("name", metavar="ID")
@click.option("--raw", is_flag=True, help="The value with all its fields, personal data too.")
@json_option
@explaining
def show_letter(name: str, raw: bool, as_json: bool) -> None:
    """Show one dead letter. ID: as `list` prints it, or topic/partition/offset of the place it came from."""
    letter = asyncio.run(_get(checked_name(name)))
    shown = _fields(letter) | {
        "key": plain_text(letter.key),
        "headers": {header: plain_text(text) for header, text in letter.headers},
        "value": plain_text(letter.value) if raw else outline(letter.value),
    }
    if as_json:
        print_json(shown)
        return
    value = shown.pop("value")
    print_table(f"Dead letter {letter.id}", ("field", "value"), shown.items())
    click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))
    if not raw:
        click.echo("--raw shows the value as it came, personal data too.", err=True)


@dead_letters.command("replay")
@click.argument("name", metavar="[ID]", required=False)
@topic_option
@reason_option
@click.option("--all", "everything", is_flag=True, help="Every letter.")
@click.option("--again", is_flag=True, help="Also those that were sent again before.")
@click.option("--dry-run", is_flag=True, help="Only tell how many it would be.")
@operator_option
@json_option
@explaining
def replay(
    name: str | None, topic: str | None, reason: str | None, everything: bool, again: bool, dry_run: bool,
    operator: str, as_json: bool,
) -> None:  # fmt: skip
    """Send dead letters to where they came from: one, by reason, by topic, or all.

    A letter is sent once, however often this runs (--again sends it once more), and what was done already is not done
    twice: orders and webhooks are known by their own ids. Exit 1 when a letter could not be sent.
    """
    if (name is not None) + everything + bool(topic or reason) != 1:
        raise click.UsageError("say which: an ID, or --reason and --topic, or --all")
    wanted = LetterFilter(topic, reason, checked_name(name) if name is not None else None)
    chosen, results = asyncio.run(_replay(wanted, operator, again, dry_run, quiet=as_json))
    counts = Counter(result.outcome for result in results)
    failed = [result for result in results if result.outcome is Sent.FAILED]
    if as_json:
        print_json({
            "chosen": chosen, "sent": counts[Sent.SENT], "already": counts[Sent.ALREADY],
            "claimed": counts[Sent.CLAIMED], "failed": counts[Sent.FAILED],
            "failures": [{"id": it.letter, "source": it.source, "why": it.why} for it in failed],
        })  # fmt: skip
    elif dry_run:
        click.echo(f"{chosen} letters are like that.")
    else:
        _tell(counts, failed)
    if not chosen:
        end(NOTHING)
    end(NOTHING if failed else UNAVAILABLE if counts[Sent.CLAIMED] else OK)


def _tell(counts: Counter[Sent], failed: Sequence[Replayed]) -> None:
    for it in failed[:FAILURES_SHOWN_MAX]:
        click.echo(f"{it.letter} ({it.source}): {it.why}", err=True)
    click.echo(f"{counts[Sent.SENT]} sent")
    if counts[Sent.SENT]:
        click.echo("What is refused again comes back as a new letter: `payment-service dead-letters list`.", err=True)
    for outcome, text in (
        (Sent.ALREADY, "had been sent before (--again sends them once more)"),
        (Sent.CLAIMED, "are being sent by somebody else, or were when that died; free in a minute"),
        (Sent.FAILED, "could not be sent"),
    ):
        if counts[outcome]:
            click.echo(f"{counts[outcome]} {text}")


async def _find(wanted: LetterFilter, limit: int) -> LetterPage:
    async with service.open_dead_letters(service.load_settings()) as desk:
        return await desk.find(wanted, limit)


async def _get(name: str) -> Letter:
    async with service.open_dead_letters(service.load_settings()) as desk:
        return await desk.get(name)


async def _replay(
    wanted: LetterFilter, operator: str, again: bool, dry_run: bool, *, quiet: bool
) -> tuple[int, list[Replayed]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    results: list[Replayed] = []
    async with service.open_dead_letters(service.load_settings()) as desk:
        chosen = await desk.choose(wanted)
        if dry_run or not chosen:
            return len(chosen), results
        columns = (TextColumn("sending again"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console(stderr=True), disable=quiet) as progress:
            bar = progress.add_task("", total=len(chosen))
            async with aclosing(desk.replay(list(chosen), operator, again=again)) as batches:
                async for batch in batches:
                    results += batch
                    progress.advance(bar, len(batch))
    return len(chosen), results
