"""The doctor beside a worker that has done some work finds nothing wrong, and nobody is missed where nothing waits."""

from pathlib import Path
from typing import Any

import pytest
from rigs.commands import command
from rigs.worker import Installation

pytestmark = pytest.mark.long

AREAS = ("database", "broker", "providers", "work")


async def examined(site: Installation) -> tuple[int, dict[str, tuple[str, str]]]:
    only = [word for area in AREAS for word in ("--only", area)]
    code, said = await command(site, "doctor", *only)
    found: list[dict[str, Any]] = said["findings"]
    return code, {it["check"]: (it["health"], it["what"]) for it in found}


async def test_nothing_is_wrong_beside_a_worker(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        worker = await site.started()
        made = await worker.call("POST", "/api/v1/payments", {"orderId": "order-1", "amount": 5}, user="user-1")
        path = f"/api/v1/payments/{made.data['id']}/process"
        assert (await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user="user-1")).status == 200
        await site.until_told(1)
        await worker.streaming()
        code, found = await examined(site)
        assert code == 0, found
        assert found["topics"][0] == "OK"
        assert found["workers"] == ("OK", "1 publish events now")
        assert found["books"] == ("OK", "agree for 1 payments")
        assert found["audit chains"][0] == "OK"
        unwell = {check for check, (health, _) in found.items() if health == "WARNING"}
        assert unwell <= {"role", "append-only"}, found
        await worker.stop()
        code, found = await examined(site)
        assert (code, "workers" in found) == (0, False), "nobody is missed where nothing waits"
