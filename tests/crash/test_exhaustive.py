"""The rig of every place to die, in short: a few places, and each planted bug, which it must find.

The whole of it is `python tests/crash/exhaustive.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

RIG = Path(__file__).with_name("exhaustive.py")
WAIT_S = 240.0
PLANTS = {
    "forgetful_provider": ("refunded", "provider.send", "moved money 2 times"),
    "effect_before_intent": ("captured", "provider.send", "the ledger 1250"),
    "told_before_commit": ("paid", "store.load", "the order has 0 payments"),
    "acked_before_sent": ("paid", "broker.put", "published are the events"),
}
"""Planted bug -> the story and the port where it shows, and what the auditor says of it."""


def rig(postgres_server: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(RIG), "--once", "--database-url", postgres_server, "--limit-s", "120", *arguments],
        check=False, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_worker_that_dies_at_the_first_call_of_any_port_loses_and_doubles_nothing(postgres_server: str) -> None:
    code, said = rig(postgres_server, "--stories", "captured", "order_charged", "--first", "1")
    assert code == 0, said
    assert " 0 violations" in said
    kills = int(said.split(" kills")[0].split()[-1])
    assert kills > 20, said


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(postgres_server: str, plant: str) -> None:
    story, call, wrong = PLANTS[plant]
    code, said = rig(postgres_server, "--stories", story, "--calls", call, "--plant", plant)
    assert code == 1, said
    assert wrong in said, said
    assert "unkilled" not in said, "it was no matter of dying"
