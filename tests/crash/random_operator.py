"""The person who is asked at last: a refund or capture that the provider does not have and nobody may send again,
since money went back beside us meanwhile, or the payment is being cancelled.

Design §4: it is looked up, never guessed. Here somebody opens the provider's dashboard (the simulator's ledger) and
decides with `payment-service payments resolve`, as a real operator would.
"""

import asyncio
import os
import sys

from crash.random_site import Site

COMMAND = (sys.executable, "-m", "payment_service.cli.main", "payments", "resolve")
RESOLVE_S = 60.0
AT_ONCE_MAX = 3
"""A command is a process of some seconds; the machine has others."""
MARGIN_S = 40
"""Beyond the window: what was sent in its last moment has arrived or never will, and what may be sent again was."""


async def decide_what_is_left(site: Site) -> None:
    """Decides at most AT_ONCE_MAX of them; called again until none is left."""
    window = int(site.env["RESEND_WINDOW_S"]) + MARGIN_S
    due = site.rows(
        "select payment_id, number, type, provider_key from payment_service.transactions where status = 'UNKNOWN'"
        f" and type in ('REFUND', 'CAPTURE') and due_at is not null and sent_at < now() - interval '{window} seconds'"
        f" limit {AT_ONCE_MAX}"
    )
    await asyncio.gather(*(_decide(site, *row) for row in due))


async def _decide(site: Site, payment_id: str, number: int, kind: str, key: str) -> None:
    listed = await site.sim.ask("GET", f"/_sim/movements?payment_id={payment_id}")
    found = [it for it in listed["movements"] if it["key"] == key]
    verdict = ("--as", "approved", "--provider-id", found[0]["id"]) if found else ("--as", "declined")
    which = "--refund" if kind == "REFUND" else "--attempt"
    process = await asyncio.create_subprocess_exec(
        *COMMAND, payment_id, which, str(number), *verdict, "--reason", "looked up", "--operator", "rig",
        env={"PATH": os.environ.get("PATH", os.defpath), **site.env, "DATABASE_URL": site.installation.database_url},
        cwd=site.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), RESOLVE_S)
    except TimeoutError:
        process.kill()
        said = b"it did not end"
    site.history.note(
        "operator", payment_id=payment_id, key=key, verdict=verdict[1], code=process.returncode,
        said=said.decode(errors="replace")[-300:],
    )  # fmt: skip
