"""The auditor of a run: an independent model of what must be true, over the evidence alone.

It imports nothing of the service and knows only the contract: inputs that were sent, what callers were told, the
provider's ledger, the topics and the tables. `python -m crash.auditor FOLDER` in tests/ judges a kept run again.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from crash import auditor_events, auditor_inputs, auditor_money
from crash.auditor_evidence import Evidence, Violation, read_evidence

Check = Callable[[Evidence], Iterator[Violation]]

CHECKS: tuple[Check, ...] = (*auditor_inputs.CHECKS, *auditor_money.CHECKS, *auditor_events.CHECKS)
SHOWN_MAX = 40
"""Violations that are printed; a single cause often has hundreds."""


def audit(evidence: Evidence) -> list[Violation]:
    return [violation for check in CHECKS for violation in check(evidence)]


def report(violations: list[Violation]) -> str:
    kinds = Counter(violation.kind for violation in violations)
    lines = [f"{count:5} {kind}" for kind, count in kinds.most_common()]
    lines += [f"  {it.kind}: {it.subject}: {it.text}" for it in violations[:SHOWN_MAX]]
    return "\n".join(lines)


if __name__ == "__main__":
    found = audit(read_evidence(Path(sys.argv[1])))
    print(report(found) or "no violation")
    sys.exit(bool(found))
