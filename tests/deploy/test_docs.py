"""What docs/ and the alerts tell a person to type, open or look for is there."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

from payment_service.adapters.metric_list import COUNTERS, GAUGES, HISTOGRAMS
from payment_service.adapters.settings import Settings, environment_names
from payment_service.cli.main import program

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [
    *PAGES,
    ROOT / "README.md",
    ROOT / "deploy" / "oci" / "README.md",
    ROOT / "deploy" / "prometheus" / "alerts.yaml",
]
PROGRAM = "payment-service"
OURS = re.compile(r"\b(?:[A-Z][A-Z0-9]*_)+[A-Z0-9]+\b")
LOG_LINE = re.compile(r"log(?: line| lines|:| says)[^`\n]{0,12}`([^`]+)`")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def alerts() -> dict[str, dict[str, str]]:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    assert {name: it.get("runbook") for name, it in alerts().items()} == {
        name: f"docs/runbooks/{name}.md" for name in alerts()
    }
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(alerts())


@pytest.mark.parametrize("page", [it for it in RUNBOOKS.glob("*.md") if it.stem != "README"], ids=ids)
def test_a_runbook_says_how_urgent_it_is(page: Path) -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    (severity,) = [it["labels"]["severity"] for group in groups for it in group["rules"] if it["alert"] == page.stem]
    title, _, first = page.read_text().splitlines()[:3]
    assert title == f"# {page.stem}"
    assert first.startswith(f"**{severity.capitalize()}.** ")


def snippets(text: str) -> Iterator[str]:
    """Whatever stands as code: between backticks, or a line of a block."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    for block in blocks:
        yield from block.replace("\\\n", " ").splitlines()
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    yield from (" ".join(it.split()) for it in re.findall(r"`([^`]+)`", rest))


def is_short_form(words: list[str]) -> bool:
    """`payments show ID`; not a log line that begins with the same word."""
    group = program().commands.get(words[0]) if len(words) > 1 else None
    return isinstance(group, click.Group) and (
        words[1].split("|")[0] in group.commands or any(it == "ID" or it.startswith("--") for it in words)
    )


def words_of(snippet: str) -> list[list[str]]:
    """The words after the program's name, or those of a short form without it; [] for what is no command of ours."""
    found = []
    for part in re.split(r"&&|\|\||;", re.sub(r"\s#.*$|\{\{.*?\}\}", "", snippet)):
        words = [word for word in shlex.split(part.replace("'", "’")) if "=" not in word or word.startswith("-")]
        if words[:1] == [PROGRAM] and len(words) > 1:
            found.append(words[1:])
        elif is_short_form(words):
            found.append(words)
    return found


def fault(words: list[str]) -> str | None:
    """Why click would not take it."""
    command: click.Command = program()
    while isinstance(command, click.Group) and words:
        name, *words = words
        if name.startswith("-"):
            return None if name in ("--help", "--version") else f"no option {name}"
        if "|" in name:
            missing = [it for it in name.split("|") if it not in command.commands]
            return f"no {missing}" if missing else None
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    if type(command).__module__.startswith("faust") or not any(it.startswith("-") for it in words):
        return None
    before = ["", *words]
    given = ["1" if it in ("ID", "N") else it for it, ahead in zip(words, before, strict=False)
             if it not in ("…", "...") or ahead.startswith("-")]  # fmt: skip
    try:
        command.make_context(command.name, given)
    except click.MissingParameter:
        return None
    except click.exceptions.Exit:
        return None
    except click.BadOptionUsage as error:  # named alone, without its value
        return None if f"'{words[-1]}'" in error.format_message() else error.format_message()
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("text", TEXTS, ids=ids)
def test_every_command_exists_with_its_options(text: Path) -> None:
    faults = {it: why for it in snippets(text.read_text()) for words in words_of(it) if (why := fault(words))}
    assert faults == {}


def test_a_wrong_command_is_seen() -> None:
    for said in (
        f"{PROGRAM} doktor", "payments forget ID", f"{PROGRAM} reconcile --at once", f"{PROGRAM} doctor --only moon",
        f"{PROGRAM} topics check|make", f"{PROGRAM} payments resolve ID --as perhaps",
    ):  # fmt: skip
        (words,) = words_of(said)
        assert fault(words), said
    assert [fault(it) for it in words_of("payment-service doctor --only work && payments show ID # why")] == [
        None,
        None,
    ]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if heading:
            heads = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            assert heading in {re.sub(r"[^a-z0-9 -]", "", it.lower()).replace(" ", "-") for it in heads}, target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in re.findall(r"`((?:deploy|docs|adapters|tests)/[\w./*-]+)`", page.read_text()):
        assert list(ROOT.glob(name.rstrip("/"))), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_setting_and_number_that_is_named_exists(page: Path) -> None:
    """Settings, and codes and states, which are words of the same form."""
    settings = {name for field in Settings.model_fields for name in environment_names(field)}
    text = page.read_text()
    strange = set(OURS.findall(text)) - settings
    assert {it for it in strange if not re.search(rf"\b{it}\b", our_texts())} == set()
    known = {name.removesuffix("_total") for name in (*COUNTERS, *GAUGES, *HISTOGRAMS)}
    assert {
        it for it in re.findall(r"`([a-z]+(?:_[a-z]+)+_total)`", text) if it.removesuffix("_total") not in known
    } <= {"container_cpu_cfs_throttled_periods_total"}


@cache
def our_texts() -> str:
    """Of the program, without what only joins a line to the next."""
    rooms = ("adapters", "agents", "codecs", "core", "tables", "web", "cli")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")] + list(ROOT.glob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in sorted(files)))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_log_line_that_is_named_is_written(page: Path) -> None:
    """The parts between what stands for a value."""
    for line in LOG_LINE.findall(" ".join(page.read_text().split())):
        for part in re.split(r"…|\bID\b|\bN\b|\bCUR\b", line):
            words = part.strip(" :")
            assert len(words) < 4 or words in our_texts(), (line, words)
