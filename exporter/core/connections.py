"""Admission of client connections: which one is closed when too many are open."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_RESERVE_DIVISOR = 16
_CLIENT_PREFIX = 64  # the smallest network that a customer gets, RFC 6177


def client_address(host: str) -> str:
    """Return the address that identifies a client; equal for all addresses of an IPv6 /64.

    A single machine can use any address of its network. ``host`` is an IP address, or "" for a
    Unix socket.
    """
    address = _parse(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _CLIENT_PREFIX), strict=False))
    return host if address is None else str(address)


def is_local(host: str) -> bool:
    """Return whether a client runs on this machine: a loopback address or a Unix socket."""
    address = _parse(host)
    return not host or (address is not None and address.is_loopback)


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # A listener for IPv4 and IPv6 shows ::ffff:192.0.2.1.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@dataclass(eq=False, slots=True)
class Connection:
    """A connection of the client at an IP address, "" for a Unix socket; ``close`` ends it.

    It is idle during the handshake, before the first request and between requests.
    """

    host: str
    close: Callable[[], None]
    is_idle: bool = True
    client: str = ""
    is_local: bool = False

    def __post_init__(self) -> None:
        self.client = client_address(self.host)
        self.is_local = is_local(self.host)


class ConnectionTable:
    """Open connections, the least recently used first.

    At most ``limit`` connections are open, and of clients on other machines a sixteenth less: so
    a health check on this machine is answered while all others are in use.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, new: Connection) -> tuple[bool, list[Connection]]:
        """Return whether a connection is admitted, and those that must be closed for it.

        Those of the client with the most connections are closed first, and of these the least
        recently used idle one. A busy one is closed only for a client that has fewer connections.
        Both the admitted and the closed ones are accounted for.
        """
        closed: list[Connection] = []
        while (candidates := self._in_the_way_of(new)) is not None:
            victim = _victim(candidates, new)
            if victim is None:
                return False, closed
            self.remove(victim)
            closed.append(victim)
        self._open[new] = None
        return True, closed

    def set_idle(self, connection: Connection, *, idle: bool) -> None:
        """Record that a request has begun or its response is complete."""
        connection.is_idle = idle
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed; do nothing if it is forgotten already."""
        self._open.pop(connection, None)

    def remove_oldest_idle(self) -> Connection | None:
        """Forget and return the least recently used idle connection, which must be closed."""
        oldest = next((each for each in self._open if each.is_idle), None)
        if oldest is not None:
            self.remove(oldest)
        return oldest

    def _in_the_way_of(self, new: Connection) -> list[Connection] | None:
        """Return the connections of which one must be closed; None if there is room."""
        remote = [each for each in self._open if not each.is_local]
        if not new.is_local and len(remote) >= self.limit - max(1, self.limit // _RESERVE_DIVISOR):
            return remote
        return list(self._open) if len(self._open) >= self.limit else None


def _victim(candidates: Iterable[Connection], new: Connection) -> Connection | None:
    counts = Counter(each.client for each in candidates)
    counts[new.client] += 1
    most = max(counts.values())
    largest = [each for each in candidates if counts[each.client] == most]
    idle = next((each for each in largest if each.is_idle), None)
    if idle is not None or counts[new.client] == most:
        return idle
    return largest[0]
