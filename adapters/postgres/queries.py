"""All SQL of the service by name: `QUERIES["load_payments"]`.

Room: adapters/postgres. A query sits in queries.sql under a line `-- name --`, with a comment that says why.
"""

import re
from importlib import resources

_HEADING = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)


def _read() -> dict[str, str]:
    text = resources.files("payment_service.adapters.postgres").joinpath("queries.sql").read_text("utf-8")
    parts = _HEADING.split(text)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


QUERIES = _read()
NAMES = {text: name for name, text in QUERIES.items()}
"""By what a statement is counted."""
