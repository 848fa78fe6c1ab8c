"""The auditor can fail: an honest run passes, and each thing that must never happen is seen when it has happened."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crash.auditor import audit
from crash.auditor_events import chain_key
from crash.auditor_evidence import read_evidence
from crash.history import History
from crash.honest_run import BUCKETS, KEY, TAKEN, Run, honest_run, shown

from payment_service.adapters import audit_chain

Spoil = Callable[[Run], Any]


def kinds(run: Run) -> set[str]:
    return {violation.kind for violation in audit(run.evidence())}


def test_an_honest_run_passes() -> None:
    assert audit(honest_run().evidence()) == []


def _tell(message: dict[str, Any], **data: Any) -> None:
    event = json.loads(message["value"])
    event["data"] |= data
    message["value"] = json.dumps(event)


def _second_payment(run: Run) -> None:
    run.stored("p9", "o-charged", "PENDING", [("PaymentCreated", "payment.created", {})])


def _charged_again(run: Run) -> None:
    run.called("p1:charge:2", "CHARGE", "SUCCEEDED")
    run.move("p1", "charge", 1000, "p1:charge:2")


def _never_tried(run: Run) -> None:
    run.row("p1").update(status="PENDING")
    run.tables["transactions"].remove(run.call("p1:charge:1"))


def _late_refund_by_nobody(run: Run) -> None:
    run.called("p1:refund:1", "REFUND", "SUCCEEDED")
    run.move("p1", "refund", 100, "p1:refund:1")


def _again_with(message: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return message | {"offset": 99, "at_ms": 9000, **changes}


SPOILED: list[tuple[str, str, Spoil]] = [
    ("an order is lost", "order without payment", lambda run: run.ordered("o-lost", "created")),
    ("a creation that was told is lost", "order without payment",
     lambda run: run.asked("o-gone", "create", 201, shown("p8", "o-gone", "PENDING", 1))),
    ("an order has two payments", "two payments", _second_payment),
    ("a payment that nobody ordered", "payment of nothing", lambda run: run.row("p1").update(order_id="o-x")),
    ("another amount than ordered", "amount", lambda run: run.row("p1").update(amount_minor=999)),
    ("a correction is lost", "amount", lambda run: run.ordered("o-cancelled", "created", 2000, partition=1)),
    ("a cancellation is lost", "not cancelled", lambda run: run.row("p4").update(status="PENDING")),
    ("an order cancelled first is charged", "charged a cancelled order",
     lambda run: run.move("p4", "charge", 1000, "p4:charge:1")),
    ("an order is never charged", "not charged", _never_tried),
    ("a dead letter is lost", "dead letter lost", lambda run: run.drop(run.messages[-1])),
    ("a dead letter is changed", "dead letter changed", lambda run: run.messages[-1].update(value="[")),
    ("a good event is a dead letter", "dead letter of a good event",
     lambda run: run.messages[-1]["headers"][2].__setitem__(1, "8")),
    ("one key moves money twice", "key charged twice", lambda run: run.move("p1", "charge", 1000, "p1:charge:1")),
    ("two keys charge one payment", "charged twice", _charged_again),
    ("a capture without a hold", "charged twice", lambda run: run.move("p5", "capture", 1000, "p5:capture:3")),
    ("more is taken than it costs", "charged too much",
     lambda run: run.movement("p1:charge:1").update(amount_minor=1001)),
    ("more is given back than was taken", "refunded too much",
     lambda run: run.movement("p2:refund:1").update(amount_minor=1001)),
    ("a call was made before its commit", "money without intent",
     lambda run: run.tables["transactions"].remove(run.call("p1:charge:1"))),
    ("money moves for a payment that is not ours", "money of nobody",
     lambda run: run.move("p77", "charge", 5, "p77:c:1")),
    ("a key belongs to another payment", "money of another",
     lambda run: run.call("p1:charge:1").update(payment_id="p2")),
    ("a payment stays open", "unsettled", lambda run: run.row("p3").update(status="UNKNOWN")),
    ("a call stays due", "unsettled", lambda run: run.call("p1:charge:1").update(due_at="2026-01-01")),
    ("a refund stays open", "unsettled", lambda run: run.tables["refunds"][0].update(status="UNKNOWN")),
    ("an event stays in the outbox", "unsettled",
     lambda run: run.tables.update(outbox=[{"payment_id": "p1", "sequence": 2}])),
    ("a webhook stays parked", "unsettled",
     lambda run: run.tables.update(payment_webhooks=[{"payment_id": "p1", "status": "PARKED", "type": "x"}])),
    ("a webhook could not be applied", "unsettled",
     lambda run: run.tables.update(payment_webhooks=[{"payment_id": "p1", "status": "FAILED", "type": "x"}])),
    ("the time for quiet runs out", "unsettled",
     lambda run: run.history.append({"what": "unsettled", "at_ms": 1, "text": "lag"})),
    ("a bucket differs from the ledger", "bucket", lambda run: run.row("p2").update(refunded=200)),
    ("a status differs from the ledger", "status", lambda run: run.row("p1").update(status="FAILED")),
    ("a hold is forgotten", "status", lambda run: run.ledger.remove(run.movement("p5:void:2"))),
    ("a yes without money", "yes without money", lambda run: run.ledger.remove(run.movement("p1:charge:1"))),
    ("a no with money", "no with money", lambda run: run.move("p3", "charge", 1000, "p3:charge:1")),
    ("refund rows differ from the ledger", "refund", lambda run: run.tables["refunds"][0].update(amount_minor=301)),
    ("a sequence has a hole", "sequence", lambda run: run.row("p1").update(sequence=3)),
    ("an event was never published", "event lost", lambda run: run.drop(run.told("p2", 2)[0])),
    ("an event was never stored", "event of nothing",
     lambda run: run.tables["payment_events"].remove(
         next(it for it in run.tables["payment_events"] if (it["payment_id"], it["sequence"]) == ("p1", 2)))),
    ("a redelivery has another content", "event changed",
     lambda run: _tell(next(it for it in run.messages if it["offset"] == 90), status="FAILED")),
    ("a redelivery has another id", "event changed",
     lambda run: run.messages.append(_again_with(run.told("p1", 1)[0], headers=[["ce_id", "evt_new"]]))),
    ("events of a payment change places", "disorder", lambda run: run.told("p2", 2)[0].update(at_ms=1)),
    ("the world was told of money that did not move", "told the world",
     lambda run: _tell(run.told("p3", 2)[0], amounts=dict.fromkeys(BUCKETS, 0) | {"captured": 5})),
    ("money changed in silence", "told the world",
     lambda run: _tell(run.told("p2", 3)[0], amounts=dict.fromkeys(BUCKETS, 0) | TAKEN)),
    ("a stored event was changed", "chain", lambda run: run.tables["payment_events"][1].update(data="7b7d")),
    ("the last event was cut off", "chain", lambda run: run.tables["payment_events"].remove(
        next(it for it in run.tables["payment_events"] if (it["payment_id"], it["version"]) == ("p3", 3)))),
    ("the head was changed", "chain", lambda run: run.row("p1").update(chain_head="00" * 32)),
    ("a payment was removed", "chain", lambda run: run.tables["payments"].remove(run.row("p1"))),
    ("an entry of the audit log is gone", "audit log", lambda run: run.tables["audit_log"].pop(0)),
    ("an entry of the audit log was changed", "audit log", lambda run: run.tables["audit_log"][1].update(entry="{}")),
    ("a client saw a version that is gone", "told the client",
     lambda run: run.answers("process", "o-paid")[0]["body"]["data"].update(version=6)),
    ("a client was told SUCCEEDED for nothing", "told the client",
     lambda run: run.asked("o-declined", "get", 200, shown("p3", "o-declined", "SUCCEEDED", 3))),
    ("a client was told of money that did not move", "told the client",
     lambda run: run.asked("o-declined", "get", 200, shown("p3", "o-declined", "FAILED", 3, captured=1))),
    ("a client was refused and charged", "told the client", lambda run: run.move("p3", "charge", 1000, None)),
    ("a refund that was told is gone", "told the client", lambda run: run.tables["refunds"][0].update(id="ref_p2_2")),
    ("a refund that was told COMPLETED failed", "told the client",
     lambda run: run.tables["refunds"][0].update(status="FAILED")),
    ("two calls were told one refund", "told the client", lambda run: run.asked(
        "o-paid", "refund", 200, run.answers("refund", "o-paid")[0]["body"]["data"])),
    ("a refund that nobody asked for", "refund of nobody", _late_refund_by_nobody),
    ("a client was told CANCELLED and is charged", "told the client",
     lambda run: run.row("p5").update(status="SUCCEEDED")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil"), [it[1:] for it in SPOILED], ids=[it[0] for it in SPOILED])
def test_what_must_never_happen_is_seen(kind: str, spoil: Spoil) -> None:
    run = honest_run()
    spoil(run)
    assert kind in kinds(run)


def test_every_kind_of_violation_has_its_spoiled_run() -> None:
    """A check that nothing can trip is no check."""
    texts = [path.read_text("utf-8") for path in Path(__file__).parent.glob("auditor_*.py")]
    named = {name for text in texts for name in re.findall(r'Violation\(\s*"([^"]+)"', text)}
    assert named == {it[1] for it in SPOILED}


@pytest.mark.parametrize("op", ["process", "refund"])
def test_a_time_out_may_have_happened(op: str) -> None:
    """Who was told nothing may find that money moved; who was told no may not."""
    run = honest_run()
    for answer in run.answers(op, "o-paid"):
        answer.update(what="unknown", error="TimeoutError()")
    assert kinds(run) == set()


def test_who_reached_nobody_was_told_no() -> None:
    run = honest_run()
    for answer in run.answers("process", "o-paid"):
        answer.update(what="unreached", error="refused")
    assert "told the client" in kinds(run)


def test_a_redelivery_may_repeat_a_lower_sequence_but_not_be_the_first() -> None:
    run = honest_run()
    run.messages.append(run.told("p2", 1)[0] | {"offset": 500, "at_ms": 9000})
    assert kinds(run) == set()
    first = run.told("p2", 1)
    first[0].update(offset=501, at_ms=9001)
    assert kinds(run) == {"disorder"}


def test_the_chain_is_the_documented_one() -> None:
    """The auditor's own HKDF and HMAC against the service's."""
    key = chain_key(KEY.encode())
    assert key == audit_chain.chain_key(KEY.encode())
    (first, *_) = honest_run().tables["payment_events"]
    data = bytes.fromhex(first["data"])
    assert audit_chain.next_hash(key, b"", "p1", 1, 1, "PaymentCreated", data).hex() == first["hash"]
    (entry, *_) = honest_run().tables["audit_log"]
    hashed = audit_chain.next_audit_hash(key, b"", entry["chain"], 1, entry["entry"].encode())
    assert hashed.hex() == entry["hash"]


def test_the_auditor_imports_nothing_of_the_service() -> None:
    for path in Path(__file__).parent.glob("auditor*.py"):
        assert "payment_service" not in path.read_text("utf-8").replace("`payment_service", "")


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.note("begin", seed=1)
    history.close()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"what": "ord')
    assert [line["what"] for line in read_evidence(tmp_path).history] == ["begin"]
