"""Nothing is answered over plain HTTP where HTTPS is meant: a token that came in the clear is a token to replace.

Room: web. What a proxy of ours says of the connection it has (X-Forwarded-Proto) is believed, nobody else's word.
Refused, not redirected: the secret has been sent already (ASVS 5.0, 4.1.2). Probes come from inside.
"""

from aiohttp import web

from payment_service.core.errors import Refused
from payment_service.web.client_address import FORWARDED_PROTO, is_in, parse_address
from payment_service.web.middleware.signature import PROBES, Behaviour
from payment_service.web.services import Asked, WebServices


class Https(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._enforced = services.https_only
        self._trusted = services.trusted_proxies

    def arrives(self, request: web.Request, asked: Asked) -> None:
        if not self._enforced or request.secure or asked.route in PROBES:
            return
        told = request.headers.get(FORWARDED_PROTO)
        if told is None or told.rpartition(",")[2].strip().lower() == "https":
            # None: a caller inside the cluster, which no proxy of ours stands before.
            return
        address = parse_address(request.remote or "")
        if address is not None and is_in(address, self._trusted):
            raise Refused("use https", code="FORBIDDEN")
