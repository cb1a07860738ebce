"""ListingReader: which items of a page count, and the cursors for the next listing."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.cartesia.listing import ListingReader
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune


def page(ids, *, has_more=True) -> Page:
    return Page([FineTune(text) for text in ids], has_more)


def read_pages(known_cursors, *pages) -> ListingReader:
    reader = ListingReader(known_cursors)
    for number, ids in enumerate(pages, 1):
        reader.add(page(ids, has_more=number < len(pages)))
    return reader


def read_list(known_cursors, ids, size, hidden=frozenset()) -> ListingReader:
    """Read a list by pages of ``size``, from which the ``hidden`` ids are missing."""
    reader = ListingReader(known_cursors)
    while not reader.ended:
        begin = 0 if reader.cursor is None else ids.index(reader.cursor) + 1
        visible = [text for text in ids[begin : begin + size] if text not in hidden]
        reader.add(page(visible, has_more=begin + size < len(ids)))
    return reader


def test_items_after_a_known_cursor_do_not_count():
    reader = ListingReader(["b", "d"])
    reader.add(page("ab!"))
    assert (reader.cursor, list(reader.fine_tunes)) == ("b", ["a", "b"])


def test_of_several_known_cursors_in_a_page_the_last_one_counts():
    reader = ListingReader(["a", "b", "c"])
    reader.add(page("abx"))
    assert reader.cursor == "b"


def test_all_items_of_a_page_without_known_cursors_count():
    reader = ListingReader(["x"])
    reader.add(page("abc"))
    assert reader.cursor == "c"


def test_all_items_of_the_last_page_count():
    reader = ListingReader(["a"])
    reader.add(page("abc", has_more=False))
    assert reader.ended
    assert list(reader.fine_tunes) == ["a", "b", "c"]


def test_a_cursor_that_was_followed_does_not_cut_a_second_page():
    """It moved in the list; a sequential reader reads on, and so does this one."""
    reader = ListingReader(["a", "b"])
    reader.add(page("ab"))
    reader.add(page("cbd"))
    assert (reader.cursor, list(reader.followed)) == ("d", ["b", "d"])


def test_followed_cursors_are_kept_while_fewer_pages_do_not_suffice():
    assert read_pages([], "abc", "def", "g").cursors() == ("c", "f")
    assert read_pages(["b", "d"], "ab!", "cd!", "efg").cursors() == ("b", "d")


def test_too_many_pages_are_divided_anew_from_the_end_of_the_list():
    assert read_pages(["a", "d"], "a!!", "bcd", "e").cursors() == ("b",)
    assert read_pages(["a", "c", "d"], "a!!", "bc!", "d!!", "efg").cursors() == ("a", "d")


def test_cursors_stay_while_fine_tunes_are_added_at_the_head():
    ids = [f"old{n}" for n in range(10)]
    cursors = read_list([], ids, 4).cursors()
    all_cursors = set()
    for new in range(40):
        ids.insert(0, f"new{new}")
        cursors = read_list(cursors, ids, 4).cursors()
        all_cursors |= set(cursors)
    assert len(all_cursors) <= 2 * len(ids) / 4


def test_pages_of_different_lengths_cost_few_requests_while_fine_tunes_are_added():
    """Or each cursor would take two pages: one that ends just before the next, and the rest."""
    ids = [f"old{n}" for n in range(1_000)]
    hidden = {text for n, text in enumerate(ids) if n % 7 == 3 or n % 31 == 5}
    pages = read_list([], ids, 20, hidden).pages
    cursors: tuple[str, ...] = ()
    for new in range(60):
        ids.insert(0, f"new{new}")
        reader = read_list(cursors, ids, 20, hidden)
        assert reader.pages <= 1.3 * pages
        cursors = reader.cursors()


def test_cursors_of_an_unchanged_list_with_pages_of_different_lengths_stay():
    ids = [f"ft_{n}" for n in range(400)]
    hidden = {text for n, text in enumerate(ids) if n % 7 == 3 or n % 31 == 5}
    first = read_list([], ids, 20, hidden)
    second = read_list(first.cursors(), ids, 20, hidden)
    assert first.cursors() == second.cursors() == tuple(first.followed)


def test_a_very_short_page_does_not_determine_the_page_length():
    ids = [f"ft_{n}" for n in range(100)]
    reader = read_pages([], ids[:1], ids[1:11], *([text] for text in ids[11:90]), ids[90:])
    assert len(reader.cursors()) == 100 / 5 - 1


def test_an_empty_list_has_no_cursors():
    assert read_pages([], "").cursors() == ()


@given(st.integers(1, 7), st.integers(0, 60), st.sets(st.integers(0, 60)))
def test_the_cursors_divide_the_list_into_the_fewest_pages(size, length, known):
    ids = [f"ft_{n}" for n in range(length)]
    reader = read_list([f"ft_{n}" for n in known], ids, size)
    begins = [0, *(ids.index(cursor) + 1 for cursor in reader.cursors())]
    assert list(reader.fine_tunes) == ids
    assert begins == sorted(set(begins))
    assert all(b - a <= size for a, b in zip(begins, [*begins[1:], length], strict=True))
    assert len(begins) == max(1, -(-length // size))
