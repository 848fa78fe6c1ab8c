"""Schemathesis over the whole of openapi.yaml, against the real service with a broker and a database of its own.

    make test-api                 the pinned seed, then a fresh one, which is printed
    make test-api SEED=n          that one alone

Two users ask, so that one is also tried on what the other made. At the end the service's own counters must say that
the requests came deep enough: that every call was answered well at least once.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from rigs.worker import ENCRYPTION_KEY, JWT_SECRET, Worker, token_of
from security.api_hooks import ASKS, PREPARED, WEBHOOK_SECRET

from payment_service.web.api_calls import CALLS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")
PINNED_SEED = 1
RUN_S = 80
"""Of one seed; fuzzing and stateful scenarios are repeated until then."""
EXAMPLES_MAX = 25
"""Of one call in one round."""
RUN_END_S = 240
"""A run that has not ended by then never will."""
READY_S = 90.0
PREPARED_MAX = 12
"""Payments in each state that a call wants, made before each run: whether one is there must not be a matter of luck."""
PREPARED_AMOUNT = 100_000
USERS = (ASKS, "bob")
FOR_ADMINS = "get /tables/payments/{payment_id}"
"""Nobody who asks here is one."""
ENV = {
    "ENVIRONMENT": "test", "JWT_SECRET": JWT_SECRET, "ENCRYPTION_KEY": ENCRYPTION_KEY, "PAYMENT_PROVIDER": "mock",
    "MOCK_WEBHOOK_SECRET": WEBHOOK_SECRET, "TRUSTED_PROXIES": "127.0.0.0/8", "RATE_LIMIT_MAX": "100000000",
    "WEBHOOK_RATE_LIMIT_MAX": "100000000", "PROCESS_WAIT_S": "1", "LOG_LEVEL": "WARNING",
}  # fmt: skip
_COUNTED = re.compile(
    r'^http_requests_total\{method="(\w+)",route="([^"]+)",status="2\d\d"\} ([\d.e+]+)$', re.MULTILINE
)


def _users_file(folder: Path) -> Path:
    """In the format of Web Fuzzing Commons."""
    users = [
        {"name": user, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {token_of(user)}"}]}
        for user in USERS
    ]
    file = folder / "users.json"
    file.write_text(json.dumps({"auth": users}))
    return file


async def _payments(worker: Worker, run: int) -> list[dict[str, Any]]:
    """As they were answered: some that wait, some authorized, some charged."""
    made = []
    for number in range(3 * PREPARED_MAX):
        manual = "manual" if number % 3 == 1 else "automatic"
        body = {"orderId": f"prepared-{run}-{number}", "amount": PREPARED_AMOUNT, "captureMethod": manual}
        answer = await worker.call("POST", "/api/v1/payments", body, user=ASKS)
        if number % 3:
            path = f"/api/v1/payments/{answer.data['id']}/process"
            answer = await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user=ASKS)
        made.append(answer.data)
    return made


def _run(url: str, seed: int, users: Path, payments: Path, folder: Path) -> int:
    program = Path(sys.executable).with_name("st")
    command = [
        str(program), "--config-file", str(CONFIG), "--no-color", "run", str(ROOT / "openapi.yaml"), "--url", url,
        "--checks", "all", "--max-examples", str(EXAMPLES_MAX), "--max-time", str(RUN_S), "--seed", str(seed),
        "--auth-wfc", str(users), "--continue-on-failure",
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTHONWARNINGS": "ignore", PREPARED: str(payments),
    }  # fmt: skip
    return subprocess.run(command, cwd=folder, env=environment, timeout=RUN_END_S, check=False).returncode


def answered_well(metrics: str) -> Counter[tuple[str, str]]:
    """How often each (method, path) was answered with 2xx."""
    counts: Counter[tuple[str, str]] = Counter()
    for method, route, count in _COUNTED.findall(metrics):
        counts[method.lower(), route] += int(float(count))
    return counts


async def _against_a_site(seeds: list[int], folder: Path) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        worker = Worker(folder / "site", "dev", ENV, session)
        worker.start()
        try:
            await worker.ready(READY_S)
            failed, payments, reached = 0, folder / "payments.json", Counter[tuple[str, str]]()
            for run, seed in enumerate(seeds):
                print(f"SEED={seed}", flush=True)
                payments.write_text(json.dumps(await _payments(worker, run)))
                before = answered_well(await worker.numbers(of_http=True))
                failed |= await asyncio.to_thread(_run, worker.url, seed, _users_file(folder), payments, folder)
                reached += answered_well(await worker.numbers(of_http=True)) - before
            missed = [it.name for it in CALLS if not reached[it.method, it.path] and it.name != FOR_ADMINS]
            if missed:
                print(f"never answered with 2xx: {', '.join(missed)}", flush=True)
            if failed:
                print(f"the end of the service's log:\n{worker.log}", flush=True)
            return 1 if failed or missed else 0
        finally:
            if worker.running:
                await worker.stop()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, help="this one alone; default the pinned one and a fresh one")
    given = arguments.parse_args()
    fresh = random.SystemRandom().randrange(1_000_000)
    seeds = [given.seed] if given.seed is not None else [PINNED_SEED, fresh]
    with tempfile.TemporaryDirectory(prefix="payment-api-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(_against_a_site(seeds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
