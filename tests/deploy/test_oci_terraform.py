"""deploy/oci: what Terraform would make there is what the service needs, in words that OCI's provider knows.

The provider itself comes from no package registry: the arguments of its resources are those of oci_arguments.json.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest

from payment_service.adapters.kafka_topics import ALIAS
from payment_service.adapters.settings import Settings, environment_names
from payment_service.core.topic_plan import NeededTopic, TopicReport, Verdict, as_terraform
from payment_service.services import topics_of

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "oci"
KNOWN: dict[str, dict[str, bool]] = json.loads(Path(__file__).with_name("oci_arguments.json").read_text())
OF_TERRAFORM = {"count", "for_each", "lifecycle", "depends_on"}


def plain(value: Any) -> Any:
    """Without the quotes and marks that the parser leaves in."""
    if isinstance(value, dict):
        return {plain(name): plain(it) for name, it in value.items() if not name.startswith("__")}
    if isinstance(value, list):
        return [plain(it) for it in value]
    return value.strip('"') if isinstance(value, str) else value


def parsed(text: str) -> dict[str, Any]:
    return dict(plain(hcl2.loads(text)))


FILES = {path.name: parsed(path.read_text()) for path in sorted(FOLDER.glob("*.tf"))}


def resources(files: dict[str, dict[str, Any]] = FILES) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in files.values():
        for one in file.get("resource", []):
            for kind, named in one.items():
                for name, arguments in named.items():
                    yield kind, name, arguments


def local(name: str) -> Any:
    (found,) = [block[name] for file in FILES.values() for block in file.get("locals", []) if name in block]
    return found


def faults(kind: str, arguments: dict[str, Any]) -> Iterator[str]:
    known = KNOWN[kind]
    for name, value in arguments.items():
        block = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else None
        if name in OF_TERRAFORM:
            continue
        if name not in known:
            yield f"{kind}: no argument {name}"
        elif block is not None:
            yield from faults(f"{kind}.{name}", block)
    yield from (f"{kind}: {name} is missing" for name, required in known.items() if required and name not in arguments)


def test_every_argument_is_known_and_none_is_missing() -> None:
    found = list(resources())
    assert {kind for kind, _, _ in found} == {name for name in KNOWN if "." not in name} - {"source"}
    assert [fault for kind, _, arguments in found for fault in faults(kind, arguments)] == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"partitions": 1}, "oci_streaming_stream: name is missing"),
        ({"name": "x", "partitions": 1, "retention_hours": 24}, "oci_streaming_stream: no argument retention_hours"),
    ],
)
def test_a_fault_is_seen(arguments: dict[str, Any], fault: str) -> None:
    assert list(faults("oci_streaming_stream", arguments)) == [fault]


def test_the_streams_are_the_topics_that_are_needed() -> None:
    hours = {name: local(name) for name in ("day", "weekend", "week")}

    def in_hours(said: str) -> int:
        return int(hours[said.removeprefix("${local.").removesuffix("}")])

    made = {"orders": hours["weekend"], **dict.fromkeys(local("published"), hours["day"])}
    made |= {name: in_hours(said) for name, said in local("kept").items()}
    needed = topics_of(Settings(_env_file=None))
    assert made == {it.name: it.oci_retention_h() for it in needed}
    assert ALIAS in local("retention_in_hours")


def test_the_environment_names_settings_of_ours() -> None:
    names = {name for field in Settings.model_fields for name in environment_names(field)}
    (output,) = [one["environment"] for one in FILES["outputs.tf"]["output"] if "environment" in one]
    told = set(re.findall(r"\b([A-Z][A-Z_]{3,}) =", output["value"]))
    assert len(told) > 8
    assert told <= names


def test_the_queue_gives_up_later_than_we_do() -> None:
    (queue,) = [arguments for kind, _, arguments in resources() if kind == "oci_queue_queue"]
    assert queue["dead_letter_queue_delivery_count"] > Settings(_env_file=None).oci_queue_deliveries_max


def test_what_topics_create_prints_is_terraform_too() -> None:
    needed = [*topics_of(Settings(_env_file=None)), NeededTopic(ALIAS)]
    reports = [TopicReport(f"p-{it.name}", it, None, Verdict.MISSING, []) for it in needed]
    text = as_terraform(reports, 4)
    found = list(resources({"printed": parsed(text)}))
    assert len({name for _, name, _ in found}) == len(needed)
    assert [arguments["name"] for _, _, arguments in found] == [it.name for it in reports]
    assert [fault for kind, _, arguments in found for fault in faults(kind, arguments)] == []


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_itself_reads_it(tmp_path: Path) -> None:
    """Its format, its syntax, and what its expressions give; without the provider it goes no further."""
    terraform = ["terraform", f"-chdir={tmp_path}"]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TF_CLI_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    done = subprocess.run(["terraform", "fmt", "-check", "-diff", str(FOLDER)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "variables.tf").write_text((FOLDER / "variables.tf").read_text())
    locals_of = re.findall(r"^locals \{\n.*?^\}\n", (FOLDER / "streaming.tf").read_text(), re.M | re.S)
    (tmp_path / "locals.tf").write_text("".join(locals_of))
    subprocess.run([*terraform, "init", "-input=false"], env=env, check=True, capture_output=True)
    asked = subprocess.run(
        [*terraform, "console", "-var=region=r", "-var=compartment_id=c", "-var=stream_users_group=g"],
        input="jsonencode(local.retention_in_hours)\n", env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    needed = topics_of(Settings(_env_file=None))
    assert json.loads(json.loads(asked.stdout)) == {it.name: it.oci_retention_h() for it in needed}
