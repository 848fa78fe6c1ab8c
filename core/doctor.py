"""What an examination of an installation finds: one line for each thing looked at, and how to mend what is wrong.

Room: core. Words alone; who looks at what is in adapters/checks/.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    OK = "OK"
    WARNING = "WARNING"
    """It works, but not as somebody may believe, or not for long."""
    WRONG = "WRONG"
    SKIPPED = "SKIPPED"
    """It could not be looked at: what it needs is wrong itself, or there is nothing to look at."""


class Area(StrEnum):
    """In the order in which they are looked at: what is wrong in one explains what is wrong in a later one."""

    SETTINGS = "settings"
    MACHINE = "machine"
    DATABASE = "database"
    BROKER = "broker"
    PROVIDERS = "providers"
    AROUND = "around"
    """Redis, the order service, key sets, the collector of traces."""
    WORK = "work"
    """What waits: events, calls, webhooks, letters; and whether the books and chains are whole."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` and `mend` hold no secret. `mend` is empty where nothing has to be done."""

    area: Area
    check: str
    health: Health
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Doctor:
    """Writes findings of one area."""

    area: Area

    def ok(self, check: str, what: str) -> Finding:
        return Finding(self.area, check, Health.OK, what)

    def warning(self, check: str, what: str, mend: str) -> Finding:
        return Finding(self.area, check, Health.WARNING, what, mend)

    def wrong(self, check: str, what: str, mend: str) -> Finding:
        return Finding(self.area, check, Health.WRONG, what, mend)

    def skipped(self, check: str, what: str) -> Finding:
        return Finding(self.area, check, Health.SKIPPED, what)


def worst_of(findings: Iterable[Finding]) -> Health:
    order = (Health.WRONG, Health.WARNING, Health.OK)
    found = {finding.health for finding in findings}
    return next((health for health in order if health in found), Health.OK)
