"""The order in which waiting clients are served."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.core import fair_queue
from exporter.core.fair_queue import FairQueue


def queue(limit: int = 100) -> FairQueue[str]:
    return FairQueue(limit, overload=4.0)


def push(waiting: FairQueue[str], *items: str, now: float = 0.0) -> list[str | None]:
    """Add items such as "address/user/connection": the item begins with its key."""
    return [waiting.push(tuple(each.split("/")[:3]), each, now) for each in items]


def popped(waiting: FairQueue[str], now: float = 0.0) -> list[str]:
    return list(iter(lambda: waiting.pop(now), None))


def test_addresses_take_turns_and_then_users_and_connections():
    waiting = queue()
    push(waiting, "a/x/1", "a/x/1/again", "a/x/2", "a/y/1", "b/x/1", "a/x/3")
    assert popped(waiting) == ["a/x/1", "b/x/1", "a/y/1", "a/x/2", "a/x/3", "a/x/1/again"]


def test_an_address_that_was_never_served_is_next():
    waiting = queue()
    push(waiting, *(f"{address}/x/1" for address in "abc"))
    assert waiting.pop(0.0) == "a/x/1"
    push(waiting, "a/x/2", "new/x/1")
    assert popped(waiting) == ["b/x/1", "c/x/1", "new/x/1", "a/x/2"]


def test_items_of_one_key_are_served_in_order_unless_the_oldest_waits_for_long():
    waiting = queue()
    for number in range(4):
        waiting.push(("a",), str(number), float(number))
    assert waiting.pop(4.0) == "0"
    assert waiting.pop(5.1) == "3"
    assert waiting.pop(5.0) == "1"
    assert waiting.pop(5.0) == "2"
    assert waiting.pop(5.0) is None


def test_a_full_queue_drops_the_oldest_of_the_address_with_the_most():
    waiting = queue(3)
    assert push(waiting, "b/x/0", "a/x/1", "a/x/2", "c/x/1", "c/x/2") == [
        *(None, None, None, "a/x/1", "c/x/1")
    ]
    assert popped(waiting) == ["b/x/0", "a/x/2", "c/x/2"]


def test_a_discarded_item_is_not_served():
    waiting = queue()
    push(waiting, "a/x/1", "a/x/2")
    assert waiting.discard("a/x/1") == "a/x/1"
    assert waiting.discard("a/x/1") is None
    assert popped(waiting) == ["a/x/2"]


def test_the_turns_of_many_addresses_are_forgotten(monkeypatch):
    monkeypatch.setattr(fair_queue, "_REMEMBERED", 10)
    waiting = queue()
    for number in range(100):
        push(waiting, f"{number}/x/1")
        assert waiting.pop(0.0)
    assert len(waiting._turns) == 10


KEYS = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from("12"))


@given(st.lists(st.none() | KEYS, max_size=60), st.integers(1, 10))
def test_nothing_is_lost_and_an_address_waits_for_at_most_one_turn_of_each_other(steps, limit):
    waiting: FairQueue[tuple[str, int]] = FairQueue(limit, overload=4.0)
    pushed, gone = [], []
    others_served: dict[str, set[str]] = {}
    for number, key in enumerate(steps):
        if key is not None:
            item = key[0], number
            others_served.setdefault(key[0], set())
            pushed.append(item)
            gone += [dropped] if (dropped := waiting.push(key, item, 0.0)) else []
        elif (served := waiting.pop(0.0)) is not None:
            gone.append(served)
            for address, seen in others_served.items():
                if address == served[0]:
                    seen.clear()
                elif any(each[0] == address for each in waiting._waiting):
                    assert served[0] not in seen, "two turns while another address waited"
                    seen.add(served[0])
                else:
                    seen.clear()
    while (served := waiting.pop(0.0)) is not None:
        gone.append(served)
    assert sorted(gone) == sorted(pushed)
