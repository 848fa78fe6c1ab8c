"""The chart, the settings, the program and the image say the same; where helm is, what it makes of the chart does."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from deploy.checks import CHART, ROOT, Failed, custom_resources, helm_lint, kubeconform, rendered, sets_of_values
from pydantic import SecretStr
from servers.deploy_tools import HOW_TO_GET, KUBERNETES, crd_models, program, schemas

from payment_service.adapters.settings import Settings, environment_names
from payment_service.adapters.settings_rules import problems_of
from payment_service.cli.main import COMMANDS
from payment_service.worker import END_S

pytestmark = pytest.mark.long

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
OF_THE_CHART = {"POD_NAME", "PORT", "DATA_DIR", "MIGRATE_ON_START"}
NOT_IN_A_CLUSTER = {"NODE_ENV", "EMBEDDED"}
"""The old service's word for ENVIRONMENT; and what a cluster never wants."""
MARGIN_S = 5
needs_helm = pytest.mark.skipif(program("helm") is None, reason=f"no helm: {HOW_TO_GET}")


def holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(holds_secret(it) for it in get_args(annotation))


def names(*, secret: bool) -> set[str]:
    fields = Settings.model_fields
    return {
        it for field in fields for it in environment_names(field) if holds_secret(fields[field].annotation) == secret
    }


def merged(over: Path) -> dict[str, Any]:
    """`settings` as helm makes them of values.yaml and a file."""
    return {**VALUES["settings"], **yaml.safe_load(over.read_text()).get("settings", {})}


def made_up(name: str) -> str:
    return (
        "postgresql://u:p@h/d"
        if name.endswith("DATABASE_URL")
        else f"{name}-0123456789abcdef".lower().ljust(32, "z")[:32]
    )


# --- the settings ------------------------------------------------------------------------------------------------


def test_every_setting_that_is_no_secret_can_be_given_and_nothing_else() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    allowed = schema["properties"]["settings"]["propertyNames"]["enum"]
    assert allowed == sorted(names(secret=False) - OF_THE_CHART - NOT_IN_A_CLUSTER)


def test_every_secret_is_listed_beside_the_name_of_the_secret() -> None:
    text = (CHART / "values.yaml").read_text()
    assert {it for it in names(secret=True) if not re.search(rf"\b{it}\b", text)} == {"MOCK_WEBHOOK_SECRET"}


@pytest.mark.parametrize("file", [CHART / "values.yaml", *(CHART / "templates").iterdir(), *sets_of_values().values()],
                         ids=lambda it: it.name)  # fmt: skip
def test_every_setting_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(r"\b(?:[A-Z][A-Z0-9]*_)+[A-Z0-9]+\b", file.read_text()))
    assert named <= names(secret=True) | names(secret=False) | {"OCI_"}


@pytest.mark.parametrize("file", sets_of_values().values(), ids=lambda it: it.name)
def test_with_the_secrets_that_are_listed_it_starts_in_production(file: Path) -> None:
    given = merged(file) | {
        it: made_up(it) for it in names(secret=True) if "PAYPAL" not in it and it != "KAFKA_SASL_PASSWORD"
    }
    settings = Settings(_env_file=None, **{name: re.sub("[<>]", "", value) for name, value in given.items()})
    assert settings.is_production
    assert problems_of(settings) == []


def test_whatever_production_asks_for_is_told_of() -> None:
    text = (CHART / "values.yaml").read_text()
    for kind in ("kafka", "oci-streaming"):
        bare = Settings(_env_file=None, environment="production", event_publisher_type=kind, event_consumer_type=kind)
        asked = {name for problem in problems_of(bare) for name in re.findall(r"^[A-Z_]+", problem)}
        assert len(asked) > 4
        example = (CHART / "examples" / "oke.yaml").read_text()
        assert {it for it in asked if it not in text and it not in example} == set()


# --- what helm makes of it ---------------------------------------------------------------------------------------


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [it for it in objects if it["kind"] == kind]
    return found


def containers(objects: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod, its one container) of worker and migration."""
    pods = [it["spec"]["template"]["spec"] for it in objects if it["kind"] in ("StatefulSet", "Job")]
    return [(pod, pod["containers"][0]) for pod in pods]


@needs_helm
@pytest.mark.parametrize("file", sets_of_values().values(), ids=lambda it: it.name)
def test_pods_are_given_the_settings_and_no_secret(file: Path) -> None:
    objects = rendered(file)
    config = of_kind(objects, "ConfigMap")["data"]
    assert config == merged(file)
    for _, container in containers(objects):
        env = {it["name"]: it.get("value") for it in container["env"]}
        assert env.keys() <= names(secret=False)
        sources = [kind for it in container["envFrom"] for kind in it]
        if container["args"] == ["migrate"]:
            assert env == {**config, "DATA_DIR": "/data"}
            assert set(sources) == {"secretRef"}, "a hook comes before the ConfigMap"
        else:
            assert env.keys() == OF_THE_CHART
            assert sources == ["configMapRef", "secretRef"]
    assert not any(it["kind"] == "Secret" for it in objects)


@needs_helm
def test_a_worker_has_the_time_and_the_name_that_it_needs() -> None:
    workers = of_kind(rendered(sets_of_values()["least"]), "StatefulSet")
    pod = workers["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (waits_s,) = container["lifecycle"]["preStop"]["exec"]["command"][1:]
    assert pod["terminationGracePeriodSeconds"] >= int(waits_s) + END_S + MARGIN_S
    (name,) = [it for it in container["env"] if it["name"] == "POD_NAME"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    web = (ROOT / "web" / "health.py").read_text()
    assert all(f'"{path}"' in web for path in (*probes.values(), "/metrics"))


@needs_helm
def test_pods_may_do_nothing_that_they_need_not() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.M)
    port = str(Settings(_env_file=None).port)
    for pod, container in containers(rendered(sets_of_values()["least"])):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user)
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["args"][0] in COMMANDS
        (data,) = re.findall(r"^VOLUME (\S+)$", dockerfile, re.M)
        assert {it["mountPath"] for it in container["volumeMounts"]} == {data, "/tmp"}
        assert container["resources"]["limits"].keys() == {"memory"}, "a CPU limit makes the event loop late"
        for opened in container.get("ports", []):
            assert str(opened["containerPort"]) == port
    assert re.findall(r"^EXPOSE (\d+)$", dockerfile, re.M) == [port]


@needs_helm
def test_the_rules_are_those_of_prometheus() -> None:
    ours = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    assert of_kind(rendered(sets_of_values()["oke"]), "PrometheusRule")["spec"] == yaml.safe_load(ours)
    spec = of_kind(rendered(sets_of_values()["full"]), "PrometheusRule")["spec"]
    told = [rule["annotations"]["runbook_url"] for group in spec["groups"] for rule in group["rules"]]
    assert len(told) == ours.count("- alert:")
    assert set(told) >= {"https://git.example.com/payment-service/docs/runbooks/BooksDiffer.md"}


@needs_helm
def test_no_more_workers_are_made_than_there_are_partitions() -> None:
    assert VALUES["autoscaling"]["maxReplicas"] <= Settings(_env_file=None).topic_partitions
    workers = of_kind(rendered(sets_of_values()["full"]), "StatefulSet")
    assert "replicas" not in workers["spec"], "the autoscaler and helm would undo each other's work"


# --- a fault is seen ---------------------------------------------------------------------------------------------


@needs_helm
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["settings"].update(KAFKA_BROKER="k:9092"), "KAFKA_BROKER"),
        (lambda it: it["settings"].update(STRIPE_SECRET_KEY="sk_live_1"), "STRIPE_SECRET_KEY"),
        (lambda it: it["settings"].update(TOPIC_PARTITIONS=4), "TOPIC_PARTITIONS"),
        (lambda it: it["settings"].pop("REFUND_ROLES"), "REFUND_ROLES"),
        (lambda it: it.pop("image"), "image.repository"),
        (lambda it: it.update(terminationGracePeriodSeconds=20), "terminationGracePeriodSeconds"),
        (
            lambda it: it["settings"].update(OCI_SIGN_ON="workload-identity", OCI_ENCRYPTION_KEY_SECRET_ID="ocid1"),
            "serviceAccount.create",
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path) -> None:
    given = yaml.safe_load(sets_of_values()["least"].read_text())
    change(given)
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(given))
    with pytest.raises(Failed, match=re.escape(said)):
        rendered(tmp_path / "wrong.yaml")


@needs_helm
@pytest.mark.skipif(schemas() is None or crd_models() is None, reason=HOW_TO_GET)
@pytest.mark.parametrize(
    ("file", "was", "becomes", "judge", "said"),
    [
        ("statefulset.yaml", "periodSeconds: 2", "periodSecond: 2", "kubernetes", "periodSecond"),
        ("poddisruptionbudget.yaml", "policy/v1", "policy/v1beta1", "kubernetes", "could not find schema"),
        ("networkpolicy.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: Egress", "kubernetes", "policyTypes"),
        ("servicemonitor.yaml", "port: http", "port: 3005", "operator", "port"),
        ("service.yaml", "{{- include", "{{- inclode", "lint", "inclode"),
    ],
)
def test_a_wrong_template_is_seen(file: str, was: str, becomes: str, judge: str, said: str, tmp_path: Path) -> None:
    chart = tmp_path / CHART.name
    shutil.copytree(CHART, chart)
    template = chart / "templates" / file
    assert was in template.read_text()
    template.write_text(template.read_text().replace(was, becomes))
    given = chart / "examples" / "oke.yaml"
    with pytest.raises(Failed, match=said):
        if judge == "lint":
            helm_lint(given, chart)
        elif judge == "operator":
            custom_resources(given, chart)
        else:
            kubeconform(given, KUBERNETES[-1], chart)
