"""PayPal's objects as they are kept, as they are shown, the events they cause and the money that moves with them.

Room: cli/provider_sim. An order names its authorizations, captures and refunds (`_authorizations` …); each is an object
of its own, as the Payments API shows it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from payment_service.cli.provider_sim.paypal_ask import missing, money
from payment_service.cli.provider_sim.stripe_cards import CARDS, Card, card_of
from payment_service.cli.provider_sim.world import Impossible, Thing, World, digest, now_ms, shown

PROVIDER = "paypal"
ID_LENGTH = 17
TIMED = ("order", "authorization", "capture", "refund", "dispute")
"""What says when it changed."""
DEFAULT_REFERENCE = "default"
"""`reference_id` of a purchase unit that was given none."""
VERSIONS = {
    "order": "2.0", "authorization": "2.0", "capture": "2.0", "refund": "2.0", "dispute": "1.0", "payment_token": "3.0",
}  # fmt: skip


def kind_of(name: str) -> str:
    return f"{PROVIDER}.{name}"


def stamp(moment_ms: int) -> str:
    """As PayPal writes times: `2026-11-24T12:00:00Z`."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Books:
    def __init__(self, world: World) -> None:
        self.world = world

    def find(self, name: str, object_id: str) -> Thing:
        """Raises PaypalError 404."""
        thing = self.world.get(kind_of(name), object_id)
        if thing is None:
            raise missing()
        return thing

    def get(self, name: str, object_id: str) -> Thing:
        """One that another object names."""
        thing = self.world.get(kind_of(name), object_id)
        assert thing is not None, f"{object_id} is named and not there"
        return thing

    def all(self, name: str, ids: Iterable[str]) -> list[Thing]:
        return [self.get(name, object_id) for object_id in ids]

    def put(self, name: str, thing: Thing) -> Thing:
        if name in TIMED:
            thing["update_time"] = stamp(now_ms())
        self.world.put(kind_of(name), thing)
        return thing

    def new_id(self, name: str, key: str | None) -> str:
        """The same for the same key, so that a seed repeats its faults; never one that is there."""
        basis, tried = key if key is not None else str(now_ms()), 0
        made = digest(basis, name)[:ID_LENGTH].upper()
        while self.world.kind_of(made) is not None:
            tried += 1
            made = digest(made, tried, now_ms())[:ID_LENGTH].upper()
        return made

    def new(self, name: str, key: str | None, amount_minor: int, currency: str, **fields: Any) -> Thing:
        return {
            "id": self.new_id(name, key), "create_time": stamp(now_ms()), "amount": money(amount_minor, currency),
            "_minor": amount_minor, "_currency": currency, "_key": key, "_due_ms": None, **fields,
        }  # fmt: skip

    # --- shown -----------------------------------------------------------------------------------------------------

    def show(self, name: str, thing: Thing) -> Thing:
        links = [{"href": self.url(f"{self.path(name)}/{thing['id']}"), "rel": "self", "method": "GET"}]
        if name == "order":
            return self._order(thing, links)
        if name == "dispute":
            return shown({key: value for key, value in thing.items() if key != "id"}) | {"links": links}
        if name == "setup_token" and thing["status"] == "PAYER_ACTION_REQUIRED":
            links.append({"href": self.page(thing), "rel": "approve", "method": "GET"})
        if name == "refund":
            up = self.url(f"{self.path('capture')}/{thing['_capture']}")
            links.append({"href": up, "rel": "up", "method": "GET"})
        return shown(thing) | {"links": links}

    def _order(self, order: Thing, links: list[Thing]) -> Thing:
        unit = dict(order["purchase_units"][0])
        payments = {
            f"{name}s": [self.show(name, one) for one in self.all(name, order[f"_{name}s"])]
            for name in ("authorization", "capture", "refund")
            if order[f"_{name}s"]
        }
        if payments:
            unit["payments"] = payments
        if order["status"] in ("CREATED", "PAYER_ACTION_REQUIRED"):
            rel = "payer-action" if order["status"] == "PAYER_ACTION_REQUIRED" else "approve"
            links.append({"href": self.page(order), "rel": rel, "method": "GET"})
        return shown(order) | {"purchase_units": [unit], "links": links}

    def page(self, thing: Thing) -> str:
        """Of an order or a setup token."""
        return self.url(f"/_sim/approve/{thing['id']}")

    def url(self, path: str) -> str:
        return self.world.settings.public_url + path

    def path(self, name: str) -> str:
        match name:
            case "order":
                return "/v2/checkout/orders"
            case "dispute":
                return "/v1/customer/disputes"
            case "setup_token" | "payment_token":
                return f"/v3/vault/{name.replace('_', '-')}s"
            case _:
                return f"/v2/payments/{name}s"

    # --- told ------------------------------------------------------------------------------------------------------

    def emit(self, kind: str, name: str, thing: Thing) -> None:
        """`thing` as it is now."""
        webhooks, about = self.world.webhooks, thing["id"]
        if not webhooks.wanted:
            return
        event_id = webhooks.next_id("WH-", about).upper()
        event = {
            "id": event_id, "event_version": "1.0", "create_time": stamp(now_ms()), "resource_type": name,
            "resource_version": VERSIONS[name], "event_type": kind, "summary": kind.replace(".", " ").lower(),
            "resource": self.show(name, thing),
            "links": [{"href": self.url(f"/v1/notifications/webhooks-events/{event_id}"), "rel": "self",
                       "method": "GET"}],
        }  # fmt: skip
        webhooks.emit(PROVIDER, event, about)

    def move(self, kind: str, thing: Thing, order: Thing, amount_minor: int, key: str | None) -> None:
        """Money or a hold; `thing` is what it moved by."""
        unit = order["purchase_units"][0]
        self.world.move(
            PROVIDER, kind, thing["id"], order["id"], amount_minor, order["_currency"], key=key,
            payment_id=unit.get("custom_id"),
            order_id=None if unit["reference_id"] == DEFAULT_REFERENCE else unit["reference_id"],
        )  # fmt: skip

    # --- what belongs to what ----------------------------------------------------------------------------------------

    def order_of(self, thing: Thing) -> Thing:
        return self.get("order", thing["_order"])

    def card_of(self, order: Thing) -> Card:
        return CARDS[order["_card"] or "visa"]

    def wallet_of(self, token: str) -> str | None:
        """The name of what a saved wallet, or a test token that stands for one, pays with. None: there is none."""
        saved = self.world.get(kind_of("payment_token"), token)
        if saved is None:
            return card_of(token)
        return None if saved["_gone"] else str(saved["_card"])

    def taken(self, thing: Thing) -> Thing:
        """The capture of an order, or itself. Raises Impossible for those who ask through /_sim."""
        if "_captures" not in thing:
            return thing
        for capture in self.all("capture", thing["_captures"]):
            if capture["status"] != "DECLINED":
                return capture
        raise Impossible("nothing was captured")
