"""`payment-service topics`: what the broker must have, what is wrong with it, and making what is missing.

Room: cli.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.text import Text

from payment_service.cli import service
from payment_service.cli.outcome import NOTHING, OK, Failed, end, explaining
from payment_service.cli.output import console, json_option, print_json, print_table
from payment_service.core.topic_plan import (
    FOR_EVER_MS,
    HOUR_MS,
    FoundTopic,
    TopicReport,
    Verdict,
    as_kafka_topics,
    as_oci_cli,
    as_terraform,
)

if TYPE_CHECKING:
    from payment_service.offline import Settings

STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.WRONG: "bold red", Verdict.MISSING: "bold red"}
TERRAFORM, OCI_CLI, KAFKA = "terraform", "oci-cli", "kafka"
NOT_TOLD = "?"


@click.group(short_help="See and make the topics that the service needs.")
def topics() -> None:
    """The topics on the broker: what is there, what is wrong with it, what is missing.

    On OCI Streaming topics are streams, which nobody makes through Kafka: `create` prints the Terraform for them.
    """


@topics.command(short_help="Say what is missing or wrong.")
@json_option
@explaining
def check(as_json: bool) -> None:
    """Compare the topics on the broker with what the service needs: partitions, retention, compaction, sizes.

    Exit codes: 0 all is well (there may be warnings), 1 something is missing or wrong, 3 the broker is away.
    """
    reports = asyncio.run(service.look_at_topics(service.load_settings()))
    if as_json:
        print_json([_shown(it) for it in reports])
    else:
        rows = [
            (it.name, Text(it.verdict, style=STYLES[it.verdict]), *_cells(it.found), "\n".join(it.notes) or "-")
            for it in reports
        ]
        columns = ("topic", "verdict", "partitions", "cleanup", "kept", "what is wrong")
        note = "? is not told by the broker" if any(NOT_TOLD in row for row in rows) else ""
        print_table("Topics", columns, rows, right=["partitions", "kept"], note=note)
        if any(it.verdict is Verdict.MISSING for it in reports):
            click.echo("Make what is missing: payment-service topics create", err=True)
    bad = any(it.verdict in (Verdict.MISSING, Verdict.WRONG) for it in reports)
    end(NOTHING if bad else OK)


@topics.command(short_help="Make what is missing, or print how.")
@click.option("--as", "form", type=click.Choice([TERRAFORM, OCI_CLI, KAFKA]), help="Print it like this; make nothing.")
@json_option
@explaining
def create(form: str | None, as_json: bool) -> None:
    """Make the topics that are missing; those that exist are left as they are, whatever is wrong with them.

    On OCI Streaming, and with --as, nothing is made: what would make them is printed instead (exit 1, or 0 when nothing
    is missing). With KAFKA_CREATE_TOPICS=false nothing is ever made.
    """
    settings = service.load_settings()
    if form is None and not settings.names_oci_streaming:
        if not settings.kafka_create_topics:
            raise Failed(
                "KAFKA_CREATE_TOPICS is false, so nothing is made", NOTHING,
                "KAFKA_CREATE_TOPICS=true payment-service topics create, or print the commands with --as kafka.",
            )  # fmt: skip
        _made(list(asyncio.run(service.create_topics(settings))), as_json)
    missing = [it for it in asyncio.run(service.look_at_topics(settings)) if it.verdict is Verdict.MISSING]
    text = _printed(form or TERRAFORM, missing, settings)
    if as_json:
        print_json({"missing": [it.name for it in missing], "form": form or TERRAFORM, "text": text})
    elif missing:
        click.echo(text, nl=False)
        console(stderr=True).print(f"[yellow]{len(missing)} topics are missing; nothing was made.[/]")
    else:
        click.echo("Nothing is missing.", err=True)
    end(NOTHING if missing else OK)


def _made(names: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json({"made": names})
    else:
        for name in names:
            click.echo(f"made  {name}")
        if not names:
            click.echo("Nothing is missing.", err=True)
    end(OK)


def _printed(form: str, missing: Sequence[TopicReport], settings: "Settings") -> str:
    partitions = settings.topic_partitions
    if form == OCI_CLI:
        return as_oci_cli(missing, partitions, settings.oci_stream_pool_id)
    if form == KAFKA:
        return as_kafka_topics(missing, partitions, ",".join(settings.kafka_brokers) or "127.0.0.1:9092")
    return as_terraform(missing, partitions)


def _cells(found: FoundTopic | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    return str(found.partitions), found.cleanup or NOT_TOLD, _kept(found)


def _kept(found: FoundTopic) -> str:
    if found.retention_ms is None:
        return NOT_TOLD
    if found.retention_ms == FOR_EVER_MS or found.cleanup == "compact":
        return "for ever"
    return f"{found.retention_ms / HOUR_MS:g} h"


def _shown(report: TopicReport) -> dict[str, object]:
    found = report.found
    return {
        "topic": report.name,
        "verdict": report.verdict,
        "notes": list(report.notes),
        "partitions": found.partitions if found else None,
        "replicas": found.replicas if found else None,
        "cleanup": found.cleanup if found else None,
        "retentionMs": found.retention_ms if found else None,
        "messageBytesMax": found.message_bytes if found else None,
    }
