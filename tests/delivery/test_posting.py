"""Which alerts go into one request, and how a refused request is taken apart."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.active_alerts import ActiveAlert
from exporter.delivery.alertmanager import ROUND_SECONDS, Posting

AT = 1000.0


def fires(number: int, *, left: bool = False) -> ActiveAlert:
    return ActiveAlert(number, 0.0, 1.0, left, (number,))


def numbers(batch: list[ActiveAlert]) -> list[int]:
    return [alert.number for alert in batch]


def test_new_ones_are_due_at_once_and_what_was_taken_rests_until_the_next_round():
    posting = Posting(64, AT)
    posting.took(posting.next([fires(1)], AT))
    assert posting.next([fires(1)], AT + 1) == []
    assert posting.wait(AT + 1) == ROUND_SECONDS - 1
    assert numbers(posting.next([fires(1), fires(2)], AT + 2)) == [2]
    posting.took([fires(2)])
    assert numbers(posting.next([fires(1), fires(2)], AT + ROUND_SECONDS)) == [1, 2]


def test_one_that_has_ended_is_told_at_once():
    posting = Posting(64, AT)
    posting.took(posting.next([fires(1)], AT))
    assert numbers(posting.next([fires(1, left=True)], AT + 1)) == [1]


def test_a_round_that_takes_long_is_finished_before_the_next():
    posting = Posting(2, AT)
    firing = [fires(n) for n in range(5)]
    told, at = [], AT
    for _ in range(6):
        batch = posting.next(firing, at)
        told += numbers(batch)
        posting.took(batch)
        at += ROUND_SECONDS * 2
    assert told == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_what_failed_is_due_still():
    posting = Posting(64, AT)
    assert numbers(posting.next([fires(1)], AT)) == numbers(posting.next([fires(1)], AT)) == [1]


def test_a_suspect_that_is_no_longer_posted_is_forgotten():
    posting = Posting(64, AT)
    posting.refused(posting.next([fires(1), fires(2), fires(3), fires(4)], AT))
    assert numbers(posting.next([fires(3), fires(4), fires(5)], AT)) == [3, 4]
    posting.took([fires(3), fires(4)])
    assert numbers(posting.next([fires(3), fires(4), fires(5)], AT)) == [5]


def test_what_was_refused_for_good_is_tried_again_when_it_has_ended_or_somebody_asks():
    posting = Posting(64, AT)
    assert posting.refused(posting.next([fires(1)], AT)) is None
    assert posting.is_minimal(1)
    assert posting.refused(posting.next([fires(1)], AT)) == fires(1)
    assert posting.next([fires(1)], AT + 2 * ROUND_SECONDS) == []
    assert numbers(posting.next([fires(1, left=True)], AT)) == [1]
    posting.forget_refusals()
    assert numbers(posting.next([fires(1)], AT)) == [1]
    assert not posting.is_minimal(1)


@given(
    st.integers(1, 200),
    st.integers(1, 64),
    st.sets(st.integers(0, 199)),
    st.sets(st.integers(0, 199)),
)
def test_the_good_ones_are_told_the_bad_ones_found_in_few_requests(total, most, bad, hopeless):
    posting, firing = Posting(most, AT), [fires(n) for n in range(total)]
    taken, given_up, requests = set[int](), [], 0
    while batch := posting.next(firing, AT):
        requests += 1
        assert len(batch) <= most
        if any(n in hopeless or (n in bad and not posting.is_minimal(n)) for n in numbers(batch)):
            refused = posting.refused(batch)
            given_up += [] if refused is None else [refused.number]
        else:
            posting.took(batch)
            taken |= set(numbers(batch))
    everything = set(range(total))
    assert sorted(given_up) == sorted(hopeless & everything)
    assert taken == everything - hopeless
    assert all(posting.is_minimal(n) == (n in bad | hopeless) for n in everything)
    assert requests <= 3 * total


@given(
    st.integers(1, 30),
    st.integers(1, 8),
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 20.0, 61.0])), max_size=60),
)
def test_of_the_same_list_it_returns_what_it_does_of_another_like_it(total, most, steps):
    firing, at = [fires(n) for n in range(total)], AT
    same, others = Posting(most, AT), Posting(most, AT)
    for taken, seconds in steps:
        batch = same.next(firing, at)
        assert others.next(list(firing), at) == batch
        for posting in (same, others) if batch else ():
            posting.took(batch) if taken else posting.refused(batch)
        at += seconds
