"""Which connections are closed when too many are open."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.connections import Connection, ConnectionTable, client_address, is_local


def connection(host: str) -> Connection:
    return Connection(host, lambda: None)


@pytest.mark.parametrize(
    ("host", "client", "local"),
    [
        ("192.0.2.7", "192.0.2.7", False),
        ("::ffff:192.0.2.7", "192.0.2.7", False),
        ("2001:db8::1", "2001:db8::/64", False),
        ("2001:db8::ffff:1", "2001:db8::/64", False),
        ("fe80::1%eth0", "fe80::/64", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::1", "::/64", True),
        ("", "", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(host, client, local):
    assert (client_address(host), is_local(host)) == (client, local)


def admit(table: ConnectionTable, host: str, *, idle: bool = True) -> Connection:
    new = connection(host)
    assert table.admit(new) == (True, [])
    table.set_idle(new, idle=idle)
    return new


def test_the_oldest_idle_connection_of_the_largest_client_is_closed():
    table = ConnectionTable(32)
    lonely = admit(table, "192.0.2.1")
    busy = admit(table, "192.0.2.2", idle=False)
    first, second, *_ = [admit(table, "192.0.2.2") for _ in range(28)]
    table.set_idle(first, idle=False)
    table.set_idle(first, idle=True)  # used last
    assert table.admit(connection("192.0.2.3")) == (True, [second])
    assert len(table) == 30
    assert {lonely, busy, first} <= set(table._open)


def test_a_client_with_the_most_connections_gets_none_of_the_others():
    table = ConnectionTable(32)
    lonely = admit(table, "192.0.2.1")
    for _ in range(29):
        admit(table, "192.0.2.2", idle=False)
    assert table.admit(connection("192.0.2.2")) == (False, [])
    assert lonely in table._open


def test_a_busy_connection_is_closed_for_a_client_with_fewer():
    table = ConnectionTable(32)
    oldest, *_ = [admit(table, "192.0.2.2", idle=False) for _ in range(30)]
    assert table.admit(connection("192.0.2.1")) == (True, [oldest])


def test_this_machine_has_a_reserve():
    table = ConnectionTable(32)
    for number in range(30):
        admit(table, f"192.0.2.{number}", idle=False)
    assert table.admit(connection("192.0.2.99")) == (False, [])
    for _ in range(2):
        admit(table, "127.0.0.1", idle=False)
    assert table.admit(connection("127.0.0.1"))[0] is False


def test_a_lower_limit_closes_as_many_as_needed():
    table = ConnectionTable(256)
    opened = [admit(table, "127.0.0.1") for _ in range(100)]
    table.limit = 10
    new = connection("127.0.0.1")
    assert table.admit(new) == (True, opened[:91])
    assert len(table) == 10
    table.remove(new)
    table.remove(new)
    assert len(table) == 9


def test_a_connection_that_was_closed_is_not_counted_again():
    table = ConnectionTable(8)
    gone = admit(table, "127.0.0.1")
    assert table.remove_oldest_idle() is gone
    table.set_idle(gone, idle=True)
    assert len(table) == 0
    assert table.remove_oldest_idle() is None


HOSTS = ("127.0.0.1", "127.0.0.2", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "")
STEPS = st.tuples(st.sampled_from(HOSTS), st.sampled_from(["idle", "busy", "closed"]))


@given(st.lists(STEPS, max_size=80), st.integers(8, 24))
def test_the_limits_hold_and_no_client_below_its_share_is_refused(steps, limit):
    table = ConnectionTable(limit)
    for host, state in steps:
        new = connection(host)
        counts = Counter(each.client for each in table._open)
        admitted, closed = table.admit(new)
        assert (new in table._open) is admitted
        assert len(table) <= limit
        assert sum(not each.is_local for each in table._open) <= limit - 1
        assert not set(closed) & set(table._open)
        for each in closed:
            # Nobody loses a connection to a client that had as many, unless it was idle.
            assert counts[each.client] >= counts[new.client] + (0 if each.is_idle else 1)
        if not admitted:
            rivals = (
                counts
                if new.is_local
                else Counter(each.client for each in table._open if not each.is_local)
            )
            assert counts[new.client] + 1 >= max(rivals.values())
        if state == "closed":
            table.remove(new)
        else:
            table.set_idle(new, idle=state == "idle")
