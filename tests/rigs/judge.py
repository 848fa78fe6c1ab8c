"""The provider's ledger against PostgreSQL, for several workers and thousands of payments at once."""

import signal
from collections import Counter, defaultdict
from typing import Any

from rigs.worker import Installation
from servers.provider_sim import ProviderSim

TAKES = ("charge", "capture")


def judge(site: Installation, sim: ProviderSim) -> Counter[str]:
    """How many movements of each kind there were, when none was made twice and the rows agree with every one."""
    movements = sim.movements()
    keys = Counter(it["key"] for it in movements if it["key"] is not None)
    assert [key for key, count in keys.items() if count > 1] == [], "a key moved money twice"
    takings = Counter(it["payment_id"] for it in movements if it["kind"] in TAKES)
    assert [payment for payment, count in takings.items() if count > 1] == [], "a payment was charged twice"
    ledger: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for it in movements:
        ledger[it["payment_id"]][0] += it["amount_minor"] if it["kind"] in TAKES else 0
        ledger[it["payment_id"]][1] += it["amount_minor"] if it["kind"] == "refund" else 0
    rows = site.rows("select id, captured, refunded from payment_service.payments where captured > 0 or refunded > 0")
    assert {row[0]: list(row[1:]) for row in rows} == {name: sums for name, sums in ledger.items() if any(sums)}
    return Counter(it["kind"] for it in movements)


def unsettled(site: Installation) -> int:
    """Calls whose answer is not recorded."""
    query = "select count(*) from payment_service.transactions where status in ('PENDING', 'UNKNOWN')"
    return int(site.rows(query)[0][0])


def freeze(sim: ProviderSim) -> None:
    """It accepts what is sent and answers nothing, until `thaw`: then it does all of it, whoever waits or not."""
    _process(sim).send_signal(signal.SIGSTOP)


def thaw(sim: ProviderSim) -> None:
    _process(sim).send_signal(signal.SIGCONT)


def _process(sim: ProviderSim) -> Any:
    assert sim._process is not None
    return sim._process
