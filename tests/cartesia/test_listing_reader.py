"""The way through the list: where a page is cut, and what is remembered for the next time."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.cartesia.listing import Walk
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune


def page(ids, *, has_more=True) -> Page:
    return Page([FineTune(text) for text in ids], has_more)


def through(remembered, *pages) -> Walk:
    walk = Walk(remembered)
    for number, ids in enumerate(pages, 1):
        walk.take(page(ids, has_more=number < len(pages)))
    return walk


def test_a_page_is_cut_behind_a_cursor_in_its_middle():
    walk = Walk(["b", "d"])
    walk.take(page("ab!"))
    assert (walk.cursor, list(walk.fine_tunes)) == ("b", ["a", "b"])


def test_of_several_cursors_in_a_page_the_last_one_counts():
    walk = Walk(["a", "b", "c"])
    walk.take(page("abx"))
    assert walk.cursor == "b"


def test_a_page_without_a_cursor_is_taken_whole():
    walk = Walk(["x"])
    walk.take(page("abc"))
    assert walk.cursor == "c"


def test_the_last_page_is_not_cut_so_what_began_behind_it_is_not_needed():
    walk = Walk(["a"])
    walk.take(page("abc", has_more=False))
    assert walk.ended
    assert list(walk.fine_tunes) == ["a", "b", "c"]


def test_a_cursor_that_the_walk_has_gone_on_from_cuts_no_second_page():
    """It moved within the list; a sequential reader reads on, and so does this one."""
    walk = Walk(["a", "b"])
    walk.take(page("ab"))
    walk.take(page("cbd"))
    assert (walk.cursor, walk.trail) == ("d", ["b", "d"])


def test_the_cursors_of_the_trail_are_kept_while_no_fewer_pages_would_do():
    assert through([], "abc", "def", "g").cursors() == ("c", "f")
    assert through(["b", "d"], "ab!", "cd!", "efg").cursors() == ("b", "d")


def test_a_trail_of_too_many_pages_is_divided_anew_from_the_end_of_the_list():
    assert through(["a", "d"], "a!!", "bcd", "e").cursors() == ("b",)
    assert through(["a", "c", "d"], "a!!", "bc!", "d!!", "efg").cursors() == ("a", "d")


def test_while_fine_tunes_come_in_at_the_head_the_other_pages_begin_where_they_did():
    ids = [f"old{n}" for n in range(10)]
    walk = through([], ids[:4], ids[4:8], ids[8:])
    begun = set()
    for new in range(40):
        ids.insert(0, f"new{new}")
        walk = Walk(walk.cursors())
        while not walk.ended:
            begin = 0 if walk.cursor is None else ids.index(walk.cursor) + 1
            walk.take(page(ids[begin : begin + 4], has_more=begin + 4 < len(ids)))
        begun |= set(walk.cursors())
    assert len(begun) <= 2 * len(ids) / 4


def walked(remembered, ids, size, hidden) -> Walk:
    """Walk over an API whose pages lack what it hides."""
    walk = Walk(remembered)
    while not walk.ended:
        begin = 0 if walk.cursor is None else ids.index(walk.cursor) + 1
        shown = [text for text in ids[begin : begin + size] if text not in hidden]
        walk.take(page(shown, has_more=begin + size < len(ids)))
    return walk


def test_pages_of_different_lengths_are_not_divided_into_more_than_can_be_read_at_once():
    """Behind every cursor there would be a page that ends just before the next, and one more."""
    ids = [f"old{n}" for n in range(1_000)]
    hidden = {text for n, text in enumerate(ids) if n % 7 == 3 or n % 31 == 5}
    pages = walked([], ids, 20, hidden).pages
    cursors: tuple[str, ...] = ()
    for new in range(60):
        ids.insert(0, f"new{new}")
        walk = walked(cursors, ids, 20, hidden)
        assert walk.pages <= 1.3 * pages
        cursors = walk.cursors()


def test_pages_of_different_lengths_that_stand_still_are_asked_for_once_each():
    ids = [f"ft_{n}" for n in range(400)]
    hidden = {text for n, text in enumerate(ids) if n % 7 == 3 or n % 31 == 5}
    first = walked([], ids, 20, hidden)
    second = walked(first.cursors(), ids, 20, hidden)
    assert first.cursors() == second.cursors() == tuple(first.trail)


def test_a_page_far_shorter_than_the_others_does_not_set_their_measure():
    ids = [f"ft_{n}" for n in range(100)]
    walk = through([], ids[:1], ids[1:11], *([text] for text in ids[11:90]), ids[90:])
    assert len(walk.cursors()) == 100 / 5 - 1


def test_an_empty_list_has_no_cursors():
    assert through([], "").cursors() == ()


@given(st.integers(1, 7), st.integers(0, 60), st.sets(st.integers(0, 60)))
def test_what_is_remembered_divides_the_list_into_as_few_pages_as_can_be(size, length, marks):
    ids = [f"ft_{n}" for n in range(length)]
    walk = Walk([f"ft_{n}" for n in marks])
    while not walk.ended:
        begin = 0 if walk.cursor is None else ids.index(walk.cursor) + 1
        walk.take(page(ids[begin : begin + size], has_more=begin + size < length))
    begins = [0, *(ids.index(cursor) + 1 for cursor in walk.cursors())]
    assert list(walk.fine_tunes) == ids
    assert begins == sorted(set(begins))
    assert all(b - a <= size for a, b in zip(begins, [*begins[1:], length], strict=True))
    assert len(begins) == max(1, -(-length // size))
