"""`make audit`: is anything that is installed known to be vulnerable, and what is the product made of.

1. dist/sbom.cdx.json: a CycloneDX bill of materials of the product, without what only its tests need. No network.
2. pip-audit over the whole environment, at OSV (https://osv.dev).

Exit codes: 0 nothing was found; 1 something was, or the tool failed; 3 OSV cannot be reached, so nothing is known
(`--may-be-unknown` makes that 0, for machines that reach package registries alone).
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = "payment-service"
SBOM = "sbom.cdx.json"
OSV = "https://api.osv.dev/v1/query"
ASK_S, ASK_ALL_S = 15, 300
"""For one package, and for all."""
AWAY = re.compile(
    r"ConnectionError|ServiceError|Timeout|timed out|HTTPError|Max retries|Failed to (?:connect|establish)"
)
FINE, VULNERABLE, UNKNOWN = 0, 1, 3
NOTHING_KNOWN = "WARNING: OSV cannot be reached: NOTHING IS KNOWN about vulnerabilities of what is installed"


def _needs(found: Distribution, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for text in found.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def bill_of_materials(product: str = PRODUCT) -> Bom:
    """The product and everything that is installed of what it requires, with who requires what."""
    bom, made, requires = Bom(), {}, {}
    extras = [it for it in distribution(product).metadata.get_all("Provides-Extra") or () if it != "dev"]
    waiting: list[tuple[str, tuple[str, ...]]] = [(product, ("", *extras))]
    while waiting:
        name, wanted = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # an extra that is not installed here
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in made:
            continue
        needed = list(_needs(found, wanted))
        kind = ComponentType.APPLICATION if name == product else ComponentType.LIBRARY
        purl = PackageURL("pypi", name=key, version=found.version)
        made[key] = Component(name=key, version=found.version, type=kind, purl=purl, bom_ref=str(purl))
        requires[key] = [re.sub(r"[-_.]+", "-", one.name).lower() for one in needed]
        waiting += [(one.name, ("", *one.extras)) for one in needed]
    bom.metadata.component = made[product]
    for key, component in made.items():
        if key != product:
            bom.components.add(component)
        bom.register_dependency(component, [made[one] for one in requires[key] if one in made])
    return bom


def write_bill(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / SBOM
    make_outputter(bill_of_materials(), OutputFormat.JSON, SchemaVersion.V1_6).output_to_file(
        str(file), allow_overwrite=True, indent=2
    )
    return file


def ask(osv_url: str, *more: str) -> tuple[list[dict[str, Any]] | None, str]:
    """(what each package was found to be, None where nobody could be asked; the program's own words)."""
    command = [
        sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json",
        "--vulnerability-service", "osv", "--osv-url", osv_url, "--timeout", str(ASK_S), *more,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_ALL_S, check=False)
    except subprocess.TimeoutExpired:
        return None, "timed out"
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        return packages, done.stderr
    except (ValueError, KeyError):
        return None, done.stderr


def verdict(packages: list[dict[str, Any]] | None, said: str) -> tuple[int, list[str]]:
    """Exit code and what a person reads. A defect of the tool itself is a failure: it must not pass for clean."""
    if packages is None and AWAY.search(said):
        return UNKNOWN, [NOTHING_KNOWN]
    if packages is None:
        return VULNERABLE, ["pip-audit failed:", *said.splitlines()[-10:]]
    asked = [it for it in packages if "vulns" in it]
    if not asked:
        return UNKNOWN, [NOTHING_KNOWN]
    found = [
        f"{it['name']} {it['version']}: {one['id']}, fixed in {', '.join(one['fix_versions']) or 'no version yet'}"
        for it in asked
        for one in it["vulns"]
    ]
    skipped = [f"WARNING: not asked about {it['name']}: {it['skip_reason']}" for it in packages if "vulns" not in it]
    return (VULNERABLE if found else FINE), [*skipped, *found, f"{len(found)} findings in {len(asked)} packages"]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--osv-url", default=OSV, help="where to ask")
    arguments.add_argument("--may-be-unknown", action="store_true", help="exit 0 where OSV cannot be reached")
    given = arguments.parse_args()
    print(f"bill of materials: {write_bill(ROOT / 'dist').relative_to(ROOT)}", flush=True)
    code, lines = verdict(*ask(given.osv_url))
    print("\n".join(lines))
    return FINE if code == UNKNOWN and given.may_be_unknown else code


if __name__ == "__main__":
    sys.exit(main())
