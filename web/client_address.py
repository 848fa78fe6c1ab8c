"""Who really calls: the address that our own proxies saw, never one that the caller wrote.

Room: web. X-Forwarded-For is read from its end: each proxy appends whom it saw, so an entry counts only while all
entries behind it, and the connection itself, are proxies of ours.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web
from multidict import istr

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
HOPS_MAX = 10
"""Entries looked at; a longer chain of proxies of ours does not exist."""
FORWARDED_FOR = "X-Forwarded-For"
FORWARDED_PROTO = istr("X-Forwarded-Proto")
IPV6_PREFIX = 64
"""One subscriber has a whole /64, so it counts as one address."""


def client_address(request: web.Request, trusted: Sequence[Network]) -> Address | None:
    """None: the connection has no address (a local socket), or a proxy of ours named nobody that can be read."""
    address = parse_address(request.remote or "")
    if address is None or not trusted:
        return address
    hops = [hop for line in request.headers.getall(FORWARDED_FOR, ()) for hop in line.split(",")]
    for hop in reversed(hops[-HOPS_MAX:]):
        if not is_in(address, trusted):
            break
        address = parse_address(hop.strip())
        if address is None:
            return None
    return address


def parse_address(text: str) -> Address | None:
    """With or without a port; an IPv4 address in IPv6 clothes is that IPv4 address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def subscriber(address: Address | None) -> str:
    """Whom a limit counts."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, IPV6_PREFIX), strict=False))
    return str(address)
