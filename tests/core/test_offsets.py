"""What may be committed: tables by hand, then any order of completion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payment_service.core.offsets import DonePrefix


def prefix_of(*offsets: int) -> DonePrefix:
    prefix = DonePrefix()
    for offset in offsets:
        assert prefix.register(offset, now_ms=offset)
    return prefix


@pytest.mark.parametrize(
    ("registered", "finished", "shown"),
    [
        # the rows in which Faust's own bookkeeping commits past unfinished work
        ((0, 1, 2, 3, 4, 5), (5,), [None]),
        ((37, 38), (38,), [None]),
        ((37, 38, 39), (39, 37), [None, 38]),
        ((10, 15, 16), (10, 16), [11, None]),
        ((10, 15, 16), (10, 16, 15), [11, None, 17]),
        # the ordinary ones
        ((7,), (7,), [8]),
        ((1, 2, 3), (1, 2, 3), [2, 3, 4]),
        ((1, 2, 3), (3, 2, 1), [None, None, 4]),
        ((1, 2, 3, 4), (2, 1, 4, 3), [None, 3, None, 5]),
        # holes at the front and at the end are never waited for
        ((100, 900), (900, 100), [None, 901]),
    ],
)
def test_only_the_contiguous_prefix_is_committable(
    registered: tuple[int, ...], finished: tuple[int, ...], shown: list[int | None]
) -> None:
    prefix = prefix_of(*registered)
    assert [prefix.done(offset, now_ms=0) for offset in finished] == shown


def test_an_offset_read_again_is_not_registered_twice() -> None:
    prefix = prefix_of(4, 5)
    prefix.done(4, now_ms=9)
    assert not prefix.register(4, now_ms=10)
    assert not prefix.register(5, now_ms=10)
    assert prefix.register(6, now_ms=10)
    assert (len(prefix), prefix.unfinished, prefix.committable, prefix.last) == (2, 2, 5, 6)


@pytest.mark.parametrize("offset", [3, 4, 99])
def test_finishing_what_is_not_open_is_loud(offset: int) -> None:
    prefix = prefix_of(4, 5)
    prefix.done(4, now_ms=0)
    with pytest.raises(ValueError, match="not open"):
        prefix.done(offset, now_ms=0)


def test_window_counts_finished_work_behind_the_head() -> None:
    prefix = prefix_of(0, 1, 2)
    prefix.done(1, now_ms=0)
    prefix.done(2, now_ms=0)
    assert (len(prefix), prefix.unfinished, prefix.committable) == (3, 1, None)
    prefix.done(0, now_ms=0)
    assert (len(prefix), prefix.unfinished, prefix.committable) == (0, 0, 3)


def test_age_is_since_reading_and_stuck_is_since_the_last_step() -> None:
    prefix = DonePrefix()
    assert (prefix.oldest_age_ms(50), prefix.stuck_ms(50)) == (0, 0)
    prefix.register(0, now_ms=100)
    prefix.register(1, now_ms=110)
    assert (prefix.oldest_age_ms(150), prefix.stuck_ms(150)) == (50, 50)
    prefix.done(0, now_ms=200)
    assert (prefix.oldest_age_ms(230), prefix.stuck_ms(230)) == (120, 30)
    prefix.done(1, now_ms=240)
    assert (prefix.oldest_age_ms(300), prefix.stuck_ms(300)) == (0, 0)


@st.composite
def readings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    offsets = sorted(draw(st.sets(st.integers(0, 10_000), min_size=1, max_size=60)))
    return offsets, draw(st.permutations(offsets))


@given(readings(), st.integers(0, 60))
def test_never_past_an_unfinished_offset_and_all_of_it_in_the_end(
    reading: tuple[list[int], list[int]], ahead: int
) -> None:
    """`ahead`: how many are registered before the first one finishes; the rest come one by one later."""
    offsets, order = reading
    prefix = DonePrefix()
    waiting, unfinished = list(offsets), set(offsets)
    shown = -1
    for offset in order:
        while waiting and (offset > prefix.last or len(offsets) - len(waiting) < ahead):
            prefix.register(waiting.pop(0), now_ms=0)
        unfinished.discard(offset)
        new = prefix.done(offset, now_ms=0)
        if new is not None:
            assert new > shown
            shown = new
        assert all(left >= shown for left in unfinished)
        assert shown == -1 or shown - 1 in offsets
        assert len(prefix) >= prefix.unfinished
    assert shown == prefix.committable == offsets[-1] + 1
    assert len(prefix) == 0
