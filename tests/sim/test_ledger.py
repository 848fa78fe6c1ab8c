"""The ledger file: nothing that was told is lost by a kill, nothing that was not told is half there."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from rigs.provider_rig import call_for
from rigs.sim_api import Api
from servers.provider_sim import ProviderSim
from servers.waiting import until

from payment_service.adapters.embedded_process import accepts_connections, free_port
from payment_service.adapters.providers.mock_remote import RemoteMock
from payment_service.cli.provider_sim.ledger import Ledger, LedgerInUse
from payment_service.core.terms import Verdict

Make = Callable[..., ProviderSim]


async def test_a_killed_simulator_comes_back_as_it_was(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim(settle_ms=2500)
    api, mock = Api(sim, session), RemoteMock(sim.url, lambda: session)
    paid = await api.pay(key="k-paid", metadata={"payment_id": "pay_1"})
    waits = await api.pay(card="pm_card_threeDSecure2Required")
    settles = await api.pay(card="pm_card_pending", key="k-settles", metadata={"payment_id": "pay_2"})
    refund = await api.v1.refunds.create_async({"payment_intent": paid.id, "amount": 300})
    charged = await mock.send(call_for("pay_m", token="tok_visa"))
    before = sim.movements()
    sim.kill()
    sim.start()
    assert sim.movements()[: len(before)] == before
    assert (await api.v1.payment_intents.retrieve_async(paid.id)).to_dict() == paid.to_dict()
    assert (await api.v1.refunds.retrieve_async(refund.id)).to_dict() == refund.to_dict()
    again = await api.pay(key="k-paid", metadata={"payment_id": "pay_1"})
    assert again.id == paid.id
    assert (await mock.lookup(call_for("pay_m", token="tok_visa"))) == charged
    assert (await api.post(f"/_sim/approve/{waits.id}"))[1]["status"] == "succeeded"
    await api.settled(
        lambda: api.v1.payment_intents.retrieve_async(settles.id), lambda intent: intent.status == "succeeded"
    )
    assert [one["key"] for one in sim.movements("pay_2")] == ["k-settles"]
    assert [one["n"] for one in sim.movements()] == list(range(1, len(before) + 3))


async def test_killed_under_load_it_knows_all_it_answered(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim()
    mock = RemoteMock(sim.url, lambda: session)
    told: set[str] = set()
    enough = asyncio.Event()

    async def pay(number: int) -> None:
        call = call_for(f"pay_{number}", token="tok_visa")
        if (await mock.send(call)).verdict is Verdict.APPROVED:
            told.add(call.key)
            if len(told) == 200:
                enough.set()

    paying = [asyncio.create_task(pay(number)) for number in range(1500)]
    await asyncio.wait_for(enough.wait(), 30)
    sim.kill()
    await asyncio.gather(*paying)
    assert 200 <= len(told) < 1500, "killed in the middle"
    sim.start()
    moved = [one["key"] for one in sim.movements()]
    assert told <= set(moved)
    assert len(moved) == len(set(moved))
    for key in list(told)[:50]:
        answer = await mock.lookup(call_for(key.partition(":")[0], token="tok_visa"))
        assert answer.verdict is Verdict.APPROVED


async def test_a_turn_that_was_not_written_whole_did_not_happen(tmp_path: Path) -> None:
    """Wherever a kill cut the write short: the file ends somewhere within the last turn."""
    path = tmp_path / "l.jsonl"
    ledger = Ledger(path)
    sizes = []
    for number in (1, 2):
        ledger.add({"line": "object", "n": number})
        ledger.add({"line": "movement", "n": number})
        await ledger.written()
        sizes.append(path.stat().st_size)
    ledger.close()
    content = path.read_bytes()
    for size in range(sizes[0], sizes[1]):
        path.write_bytes(content[:size])
        again = Ledger(path)
        assert [line["n"] for line in again.replay()] == [1, 1], size
        again.add({"line": "movement", "n": 3})
        await again.written()
        again.close()
        assert path.read_bytes() == content[: sizes[0]] + b'{"line":"movement","n":3}\n{"line":"turn","n":2}\n'


async def test_what_was_cut_off_can_be_done_again(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim()
    mock, call = RemoteMock(sim.url, lambda: session), call_for("pay_1", token="tok_visa")
    await mock.send(call)
    sim.kill()
    sim.ledger.write_bytes(sim.ledger.read_bytes()[:-200])
    sim.start()
    assert (await mock.lookup(call)).verdict is Verdict.UNKNOWN
    assert (await mock.send(call)).verdict is Verdict.APPROVED
    assert len(sim.movements()) == 1


async def test_answers_of_one_turn_share_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    writes: list[int] = []
    real = Ledger._write
    monkeypatch.setattr(Ledger, "_write", lambda self: (writes.append(len(self._waiting)), real(self)))

    async def one(number: int) -> None:
        ledger.add({"line": "movement", "n": number})
        await ledger.written()
        assert f'"n":{number}}}' in (tmp_path / "l.jsonl").read_text()

    await asyncio.gather(*(one(number) for number in range(50)))
    assert writes == [50]
    ledger.close()
    assert len(list(Ledger(tmp_path / "l.jsonl").replay())) == 50


def test_two_simulators_do_not_share_a_ledger(tmp_path: Path) -> None:
    with ProviderSim(tmp_path) as sim:
        with pytest.raises(LedgerInUse):
            Ledger(sim.ledger)
        second = subprocess.run(
            [sys.executable, "-m", "payment_service.cli.provider_sim", "--port", str(sim.port), "--ledger", sim.ledger],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert (second.returncode, "another process" in second.stderr) == (3, True)


async def test_control_tells_how_it_is(api: Api) -> None:
    await api.pay(metadata={"payment_id": "pay_ctl"})

    async def get(path: str) -> Any:
        async with api.session.get(api.sim.url + path) as answer:
            return await answer.json()

    health = await get("/_sim/health")
    assert health["status"] == "ok" and health["movements"] >= 1
    assert [one["payment_id"] for one in (await get("/_sim/movements?payment_id=pay_ctl"))["movements"]] == ["pay_ctl"]
    async with api.session.post(f"{api.sim.url}/mock/send", data=b"{}") as malformed:
        assert malformed.status == 400


async def test_a_port_in_use_is_said_in_a_line(own_sim: Make, tmp_path: Path) -> None:
    sim = own_sim()
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "payment_service.cli.provider_sim", "--port", str(sim.port),
         "--ledger", tmp_path / "other.jsonl"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert second.returncode == 3 and "Traceback" not in second.stderr


def with_a_full_disk(port: int, ledger: Path, bytes_max: int) -> "subprocess.Popen[str]":
    """As a limit on the size of its files."""
    return subprocess.Popen(
        [sys.executable, "-m", "payment_service.cli.provider_sim", "--port", str(port), "--ledger", ledger],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max)),
    )  # fmt: skip


async def test_a_simulator_that_cannot_write_says_nothing_and_ends(tmp_path: Path) -> None:
    port = free_port()
    sim = with_a_full_disk(port, tmp_path / "l", 3000)
    try:
        await until(lambda: accepts_connections(port), "it listens")
        async with ClientSession() as session:
            mock = RemoteMock(f"http://127.0.0.1:{port}", lambda: session)
            answers = [(await mock.send(call_for(f"pay_{n}", token="tok_visa"))).verdict for n in range(5)]
        assert answers[0] is Verdict.APPROVED
        assert answers[4] is Verdict.NOT_SENT, "it is gone"
        assert "cannot be written" in await asyncio.to_thread(lambda: sim.communicate(timeout=10)[1])
        written = (tmp_path / "l").read_text().count('"line":"turn"')
        assert answers.count(Verdict.APPROVED) == written
    finally:
        sim.kill()
        sim.wait()
