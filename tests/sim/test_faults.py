"""What goes wrong when it is asked to: by header, once, by rate; and what was done nevertheless."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession, ServerDisconnectedError
from rigs.provider_rig import call_for
from rigs.sim_api import Api
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.mock_remote import RemoteMock, to_answer, to_request
from payment_service.core.ports import ProviderCall
from payment_service.core.terms import Kind, Verdict

Make = Callable[..., ProviderSim]


def mock_call(payment_id: str, kind: Kind = Kind.CHARGE, **more: Any) -> ProviderCall:
    return call_for(payment_id, kind, **{"token": "tok_visa", **more})


async def send(api: Api, call: ProviderCall, fault: str | None = None) -> int | type[Exception]:
    """The status, or how it broke."""
    headers = {"X-Sim-Fault": fault} if fault else {}
    try:
        async with api.session.post(f"{api.sim.url}/mock/send", data=to_request(call), headers=headers) as answer:
            await answer.read()
            return answer.status
    except ClientError as error:
        return type(error)


@pytest.mark.parametrize(
    ("fault", "seen", "done"),
    [
        ("drop_request", ServerDisconnectedError, False),
        ("status_429", 429, False),
        ("status_500", 500, False),
        ("drop_response", ServerDisconnectedError, True),
        ("cut_body", ClientPayloadError, True),
        ("status_500_after", 500, True),
        ("no_such_fault", 200, True),
    ],
)
async def test_a_fault_by_header_is_done_and_noted(
    api: Api, fault: str, seen: int | type[Exception], done: bool
) -> None:
    call = mock_call(f"pay_fault_{fault}")
    assert await send(api, call, fault) == seen
    assert len(api.sim.movements(call.payment_id)) == done
    noted = [line for line in api.sim.lines("fault") if line["key"] == call.key]
    assert [line["fault"] for line in noted] == ([fault] if fault != "no_such_fault" else [])
    assert await send(api, call) == 200
    assert len(api.sim.movements(call.payment_id)) == 1, "the same key moves it once, whatever was seen before"


@pytest.mark.parametrize(
    ("fault", "verdict", "code"),
    [
        ("drop_request", Verdict.UNKNOWN, "PROVIDER_TIMEOUT"),
        ("drop_response", Verdict.UNKNOWN, "PROVIDER_TIMEOUT"),
        ("cut_body", Verdict.UNKNOWN, "PROVIDER_ERROR"),
        ("status_429", Verdict.NOT_SENT, "RATE_LIMITED"),
        ("status_500", Verdict.UNKNOWN, "PROVIDER_ERROR"),
        ("status_500_after", Verdict.UNKNOWN, "PROVIDER_ERROR"),
    ],
)
async def test_the_remote_mock_never_says_more_than_it_knows(
    own_sim: Make, session: ClientSession, fault: str, verdict: Verdict, code: str
) -> None:
    api = Api(own_sim(), session)
    provider = RemoteMock(api.sim.url, lambda: session)
    call = mock_call("pay_1")
    await api.post("/_sim/faults", {"next": [{"path": "/mock/send", "fault": fault}]})
    answer = await provider.send(call)
    assert (answer.verdict, answer.code) == (verdict, code)
    moved = bool(api.sim.movements())
    assert moved == (fault in ("drop_response", "cut_body", "status_500_after"))
    assert (await provider.lookup(call)).verdict is (Verdict.APPROVED if moved else Verdict.UNKNOWN)
    assert (await provider.send(call)).verdict is Verdict.APPROVED
    assert len(api.sim.movements()) == 1


async def test_nothing_was_sent_only_when_no_connection_was_made(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim()
    provider = RemoteMock(sim.url, lambda: session)
    assert (await provider.send(mock_call("pay_1"))).verdict is Verdict.APPROVED
    sim.kill()
    refused = await provider.send(mock_call("pay_2"))
    assert (refused.verdict, refused.code) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")


async def test_a_kept_connection_that_broke_is_unknown_and_not_sent_again_by_itself(own_sim: Make) -> None:
    sim = own_sim()
    async with ClientSession() as keeping:
        provider = RemoteMock(sim.url, lambda: keeping)
        await provider.send(mock_call("pay_1"))
        await Api(sim, keeping).post("/_sim/faults", {"next": [{"path": "/mock/send", "fault": "drop_request"}]})
        answer = await provider.send(mock_call("pay_2"))
    assert answer.verdict is Verdict.UNKNOWN
    assert sim.movements("pay_2") == [], "a second try by the client would have been let through"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"verdict":"MAYBE"}', b'{"verdict":"APPROVED","amount_minor":1.5}',
     b'{"verdict":"APPROVED","provider_id":7}', b'{"verdict":"PENDING","next_action":{"url":"x"}}'],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_unknown(body: bytes) -> None:
    answer = to_answer(200, body)
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "PROVIDER_ERROR")


@pytest.mark.parametrize("status", [201, 301, 400, 404, 503])
def test_a_status_nobody_agreed_on_is_unknown(status: int) -> None:
    assert to_answer(status, b'{"verdict":"DECLINED"}').verdict is Verdict.UNKNOWN


async def test_delayed_it_happens_after_the_caller_gave_up(own_sim: Make, session: ClientSession) -> None:
    api = Api(own_sim(), session)
    await api.post("/_sim/faults", {"delay_ms": 300, "next": [{"path": "/mock/send", "fault": "delay"}]})
    provider, call = RemoteMock(api.sim.url, lambda: session), mock_call("pay_late")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await provider.send(call)
    looked_up = await provider.lookup(call)
    assert (looked_up.verdict, looked_up.code) == (Verdict.UNKNOWN, "NOT_FOUND"), "which proves nothing"
    await api.settled(lambda: provider.lookup(call), lambda answer: answer.verdict is Verdict.APPROVED)


async def test_latency_is_put_before_the_answer_of_what_moves_money_alone(
    own_sim: Make, session: ClientSession
) -> None:
    api = Api(own_sim(latency_ms=5000), session)
    provider, call = RemoteMock(api.sim.url, lambda: session), mock_call("pay_slow")
    async with asyncio.timeout(2):
        assert (await provider.create_object(call)).verdict is Verdict.APPROVED
        sending = asyncio.create_task(provider.send(call))
        await api.settled(lambda: provider.lookup(call), lambda answer: answer.verdict is Verdict.APPROVED)
    assert not sending.done(), "it is done and on disk, only not told"
    assert len(api.sim.movements("pay_slow")) == 1
    sending.cancel()
    assert (await api.post("/_sim/timing", {"latency_ms": 0}))[1]["latency_ms"] == 0
    async with asyncio.timeout(2):
        assert (await provider.send(call)).verdict is Verdict.APPROVED


RATES = {
    "drop_request": 0.1,
    "drop_response": 0.1,
    "cut_body": 0.05,
    "status_429": 0.1,
    "status_500": 0.1,
    "delay": 0.1,
}


async def faults_of(sim: ProviderSim, session: ClientSession, seed: int, order: range) -> tuple[Counter[str], set[Any]]:
    api = Api(sim, session)
    await api.post("/_sim/faults", {"rates": RATES, "delay_ms": 1, "seed": seed})
    before = len(sim.lines("fault"))
    await asyncio.gather(*(send(api, mock_call(f"pay_{number}")) for number in order))
    await api.post("/_sim/faults")
    noted = sim.lines("fault")[before:]
    return Counter(line["fault"] for line in noted), {(line["fault"], line["key"]) for line in noted}


async def test_a_seed_repeats_its_faults_in_whatever_order_they_are_met(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim()
    counted, which = await faults_of(sim, session, 7, range(300))
    for fault, rate in RATES.items():
        assert rate * 300 * 0.4 < counted[fault] < rate * 300 * 1.8, (fault, counted)
    assert (await faults_of(sim, session, 7, range(299, -1, -1)))[1] == which
    assert (await faults_of(sim, session, 8, range(300)))[1] != which
    keys = Counter(line["key"] for line in sim.movements())
    assert max(keys.values()) == 1, "300 payments, three times, under faults: none twice"


async def test_the_plan_survives_a_restart_and_ends_when_told(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim()
    api = Api(sim, session)
    await api.post("/_sim/faults", {"rates": {"status_500": 1}})
    assert await send(api, mock_call("pay_1")) == 500
    sim.kill()
    sim.start()
    assert await send(api, mock_call("pay_1")) == 500
    await api.post("/_sim/faults")
    assert await send(api, mock_call("pay_1")) == 200


@pytest.mark.parametrize(
    "plan",
    [{"rates": {"drop_everything": 1}}, {"rates": {"delay": 2}}, {"rates": {"status_500": 0.6, "status_429": 0.6}},
     {"delay_ms": -1}, {"next": [{"path": "/", "fault": "none"}]}, {"rate": {}}],
)  # fmt: skip
async def test_a_plan_that_cannot_be_meant_is_refused(api: Api, plan: dict[str, Any]) -> None:
    assert (await api.post("/_sim/faults", plan))[0] == 400
