"""provider-sim asked as PayPal is, by plain HTTP."""

from typing import Any

import orjson
from aiohttp import ClientSession, encode_basic_auth
from servers.provider_sim import ProviderSim

Said = tuple[int, Any]


class PaypalAsker:
    def __init__(self, sim: ProviderSim, session: ClientSession) -> None:
        self.sim = sim
        self.session = session
        self.bearer = ""

    async def token(self, secret: str = "secret") -> Said:
        url, form = f"{self.sim.url}/v1/oauth2/token", {"grant_type": "client_credentials"}
        basic = {"Authorization": encode_basic_auth("client", secret)}
        async with self.session.post(url, data=form, headers=basic) as answer:
            body = await answer.json()
            self.bearer = body.get("access_token", "")
            return answer.status, body

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Said:
        given = {
            "Authorization": f"Bearer {self.bearer}", "Content-Type": "application/json",
            "Prefer": "return=representation", **headers,
        } | ({"PayPal-Request-Id": key} if key is not None else {})  # fmt: skip
        data = None if body is None else orjson.dumps(body)
        async with self.session.request(method, self.sim.url + path, data=data, headers=given) as answer:
            raw = await answer.read()
            return answer.status, orjson.loads(raw) if raw else None

    async def order(self, value: str = "10.00", currency: str = "USD", intent: str = "CAPTURE", **more: Any) -> Said:
        """With `key`, `unit` (more of the purchase unit) and whatever else the body has."""
        unit = {"amount": {"currency_code": currency, "value": value}, **more.pop("unit", {})}
        key = more.pop("key", None)
        return await self.ask("POST", "/v2/checkout/orders", {"intent": intent, "purchase_units": [unit], **more}, key)

    async def control(self, path: str, body: Any = None) -> Any:
        async with self.session.post(f"{self.sim.url}/_sim/{path}", data=orjson.dumps(body or {})) as answer:
            raw = await answer.read()
            assert answer.status == 200, raw
            return orjson.loads(raw)

    async def paid(self, wallet: str = "tok_visa", payment_id: str = "pay_1", intent: str = "CAPTURE") -> Any:
        """The order, captured or authorized."""
        made = (await self.order(unit={"custom_id": payment_id}, intent=intent))[1]
        action = "capture" if intent == "CAPTURE" else "authorize"
        body = {"payment_source": {"paypal": {"vault_id": wallet}}}
        status, order = await self.ask("POST", f"/v2/checkout/orders/{made['id']}/{action}", body, f"{made['id']}:k")
        assert status == 201, order
        return order


def payments(order: Any, name: str) -> list[Any]:
    return list(order["purchase_units"][0]["payments"][name])
