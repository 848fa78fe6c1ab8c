"""What happens to the mock's payments without a call: its merchant's dashboard, the shopper's no, the bank.

Room: cli/provider_sim, beside mock.py. The same doors as for Stripe's objects: `/_sim/refunds`, `/_sim/disputes`,
`/_sim/deny/{id}`, `/_sim/expire/{id}`.
"""

from typing import Any

from payment_service.cli.provider_sim.mock_objects import DISPUTE, OBJECT, REFUND, SEND, MockObjects, charge_id
from payment_service.cli.provider_sim.world import Impossible, Thing, digest


class MockDashboard:
    def __init__(self, objects: MockObjects) -> None:
        self._objects = objects
        self._world = objects.world
        self._world.dashboard |= {
            (OBJECT, "refund"): self.refund,
            (OBJECT, "dispute"): self.dispute,
            (OBJECT, "deny"): self.deny,
            (OBJECT, "expire"): self.expire,
            (REFUND, "fail"): self.fail,
            (DISPUTE, "won"): self.won,
            (DISPUTE, "lost"): self.lost,
        }

    def refund(self, thing: Thing, given: Thing) -> Thing:
        left = thing["captured"] - thing["refunded"]
        amount = given.get("amount_minor") or left
        if thing["state"] != "CAPTURED" or not 1 <= amount <= left:
            raise Impossible(f"{left} is left to refund")
        refund_id = "mock_re_" + digest(thing["id"], "dashboard", thing["refunded"], len(self._world.movements))
        return self._objects.refund(thing, refund_id, amount, None)

    def fail(self, refund: Thing, given: Thing) -> Thing:
        """The bank sends it back. A look-up of the call that made it says so from now on."""
        if refund["state"] != "SUCCEEDED":
            raise Impossible(f"it is {refund['state']}")
        thing = self._world.get(OBJECT, refund["object_id"])
        assert thing is not None, "a refund is of an object"
        refund["state"] = "FAILED"
        thing["refunded"] -= refund["amount_minor"]
        self._world.put(REFUND, refund)
        self._world.put(OBJECT, thing)
        why = {"code": "REFUND_FAILED", "message": given.get("reason", "the card's account is closed")}
        self._no_longer(refund["_key"], thing, **why)
        self._objects.record(thing, "refund_failed", refund["id"], refund["amount_minor"], None)
        self._objects.tell(
            thing, "refund.failed", provider_id=refund["id"], charge_id=charge_id(thing), key=refund["_key"],
            amount_minor=refund["amount_minor"], **why,
        )  # fmt: skip
        return refund

    def dispute(self, thing: Thing, given: Thing) -> Thing:
        amount = given.get("amount_minor") or thing["captured"]
        dispute_id = "mock_dp_" + digest(thing["id"])
        if self._world.get(DISPUTE, dispute_id) is not None or not 1 <= amount <= thing["captured"]:
            raise Impossible("only money that was taken is disputed, and once")
        made = {
            "id": dispute_id, "object_id": thing["id"], "amount_minor": amount, "state": "OPEN",
            "reason": given.get("reason", "fraudulent"),
        }  # fmt: skip
        self._world.put(DISPUTE, made)
        self._disputed(made, "dispute", "dispute.opened")
        return made

    def won(self, dispute: Thing, _: Thing) -> Thing:
        return self._close(dispute, "won")

    def lost(self, dispute: Thing, _: Thing) -> Thing:
        return self._close(dispute, "lost")

    def deny(self, thing: Thing, _: Thing) -> Thing:
        """The shopper did not authenticate: the object can be paid otherwise."""
        if thing["state"] != "ACTION":
            raise Impossible(f"it is {thing['state']}")
        thing["state"] = "OPEN"
        self._world.put(OBJECT, thing)
        why = {"code": "AUTHENTICATION_FAILED", "message": "the shopper was not authenticated"}
        self._no_longer(thing["_key"], thing, **why)
        self._objects.tell(thing, "charge.failed", key=thing["_key"], **why)
        return thing

    def expire(self, thing: Thing, _: Thing) -> Thing:
        if thing["state"] != "AUTHORIZED":
            raise Impossible(f"it is {thing['state']}")
        thing["state"] = "CANCELLED"
        self._world.put(OBJECT, thing)
        self._objects.record(thing, "expire", charge_id(thing), thing["authorized"], None)
        self._objects.tell(
            thing, "authorization.expired", provider_id=charge_id(thing), amount_minor=thing["authorized"]
        )
        return thing

    def _close(self, dispute: Thing, how: str) -> Thing:
        if dispute["state"] != "OPEN":
            raise Impossible(f"it is {dispute['state']}")
        dispute["state"] = how.upper()
        self._world.put(DISPUTE, dispute)
        self._disputed(dispute, f"dispute_{how}", f"dispute.{how}")
        return dispute

    def _disputed(self, dispute: Thing, movement: str, what: str) -> None:
        thing = self._world.get(OBJECT, dispute["object_id"])
        assert thing is not None, "a dispute is of an object"
        self._objects.record(thing, movement, dispute["id"], dispute["amount_minor"], None)
        self._objects.tell(
            thing, what, provider_id=dispute["id"], charge_id=charge_id(thing), reason=dispute["reason"],
            amount_minor=dispute["amount_minor"],
        )  # fmt: skip

    def _no_longer(self, key: str | None, thing: Thing, **why: Any) -> None:
        """What was answered under a key is a no from now on."""
        kept = self._world.answers.get(SEND, key) if key is not None else None
        if key is not None and kept is not None:
            said = {"verdict": "DECLINED", "object_id": thing["id"], **why}
            self._world.answers.keep(SEND, key, kept.fingerprint, 200, said)
