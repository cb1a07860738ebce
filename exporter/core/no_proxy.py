"""Hosts that are reached without a proxy: the value of NO_PROXY.

Accepts what curl and Go's httpproxy accept. Both differ from each other in ``.example.com``: for
curl it includes ``example.com`` itself, and so it does here.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_Address = IPv4Address | IPv6Address
_Rule = Callable[[str, _Address | None, int], bool]

_MAX_PORT: Final = 65_535


def bypasses_proxy(no_proxy: str, host: str, port: int) -> bool:
    """Return whether ``no_proxy`` excludes a host and port from the use of a proxy.

    Its entries are separated by commas or white space: ``*`` (every host), a domain with its
    subdomains (a leading dot changes nothing), ``*.domain`` (its subdomains only), an IP address,
    or an address range in CIDR notation. A domain or an address may have a ``:port``. Case and a
    trailing dot of a name do not matter. Other entries are ignored.
    """
    name = _normal_name(host)
    address = _read_address(name)
    return any(applies(name, address, port) for applies in _rules(no_proxy))


@lru_cache(maxsize=8)
def _rules(no_proxy: str) -> tuple[_Rule, ...]:
    rules = map(_read_rule, no_proxy.replace(",", " ").split())
    return tuple(rule for rule in rules if rule is not None)


def _read_rule(entry: str) -> _Rule | None:
    if entry == "*":
        return lambda *_: True
    if "/" in entry:
        return _read_range(entry)
    host, port = _split_port(entry)
    if port == 0:
        return None
    address = _read_address(host)
    if address is not None:
        return lambda _, asked, asked_port: asked == address and port in (None, asked_port)
    only_below = host.startswith("*.")
    domain = _normal_name(host.removeprefix("*").removeprefix("."))
    if not domain:
        return None

    def applies(name: str, address: _Address | None, asked_port: int) -> bool:
        if address is not None or port not in (None, asked_port):
            return False
        return name.endswith(f".{domain}") or (name == domain and not only_below)

    return applies


def _read_range(entry: str) -> _Rule | None:
    first, _, length = entry.partition("/")
    try:
        network = ip_network(f"{_without_brackets(first)}/{length}", strict=False)
    except ValueError:
        return None
    return lambda _, address, __: address is not None and address in network


def _split_port(entry: str) -> tuple[str, int | None]:
    """Return host and port; no port is None, an invalid one 0."""
    host, colon, text = entry.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return entry, None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_PORT))):
        return host, 0
    port = int(text)
    return host, port if port <= _MAX_PORT else 0


def _normal_name(host: str) -> str:
    name = _without_brackets(host).lower().removesuffix(".")
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _read_address(text: str) -> _Address | None:
    """Return the IP address, an IPv4 one also for its form in IPv6; None for a name."""
    try:
        address = ip_address(_without_brackets(text).partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
