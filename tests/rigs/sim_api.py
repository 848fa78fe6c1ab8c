"""provider-sim as tests ask it: by Stripe's own SDK, by plain forms, and through /_sim."""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import orjson
import stripe
from aiohttp import ClientSession, ClientTimeout
from servers.provider_sim import ProviderSim

POLL_S = 0.02
_numbers = count(1)


def new_key() -> str:
    return f"pay_test:charge:{next(_numbers)}"


class Api:
    """Stripe's SDK and plain HTTP, both at one simulator."""

    def __init__(self, sim: ProviderSim, session: ClientSession) -> None:
        self.sim = sim
        self.session = session
        self._http = stripe.AIOHTTPClient(timeout=ClientTimeout(total=10), session=session)  # type: ignore[arg-type]
        self.v1 = stripe.StripeClient(
            "sk_test_sim", http_client=self._http, max_network_retries=0, base_addresses={"api": sim.url}
        ).v1

    async def pay(self, amount: int = 1000, card: str = "pm_card_visa", key: str | None = None, **more: Any) -> Any:
        """A PaymentIntent made and confirmed at once."""
        params = {
            "amount": amount, "currency": "usd", "payment_method": card, "confirm": True,
            "payment_method_types": ["card"], **more,
        }  # fmt: skip
        return await self.v1.payment_intents.create_async(params, {"idempotency_key": key or new_key()})

    async def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        async with self.session.post(self.sim.url + path, data=orjson.dumps(body or {}), headers=headers) as answer:
            raw = await answer.read()
            return answer.status, orjson.loads(raw) if answer.content_type == "application/json" else raw

    async def form(self, path: str, key: str | None = None, **fields: str) -> tuple[int, Any, Any]:
        """As Stripe is asked, without the SDK: status, body, headers."""
        headers = {"Authorization": "Bearer sk_test_sim"} | ({"Idempotency-Key": key} if key else {})
        async with self.session.post(self.sim.url + path, data=fields, headers=headers) as answer:
            return answer.status, orjson.loads(await answer.read()), answer.headers

    async def settled(self, read: Callable[[], Any], is_so: Callable[[Any], bool], wait_s: float = 5.0) -> Any:
        """Reads again until it is so; what was read then."""
        async with asyncio.timeout(wait_s):
            while True:
                thing = await read()
                if is_so(thing):
                    return thing
                await asyncio.sleep(POLL_S)
