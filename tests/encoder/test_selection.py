"""Which weights are kept, and when nobody waits for better ones: the same in every silo that opened the same sums."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.selection import Best, Selection


def sums(loss, views=8.0):
    return {"held_out_views": views, "held_out_loss_views": loss * views}


def after(*losses, silos=3):
    selection = Selection()
    for weights, loss in enumerate(losses):
        selection = selection.judged(weights, silos, sums(loss))
    return selection


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=12))
def test_the_smallest_loss_is_kept_and_the_first_among_equals(losses):
    selection = after(*losses)
    assert selection.best == losses.index(min(losses))
    assert selection.since == len(losses) - 1 - selection.best


def test_patience_counts_weights_that_were_no_better():
    assert not after(0.5, 0.4, 0.45).exhausted(2)
    assert after(0.5, 0.4, 0.45, 0.4).exhausted(2)
    assert not after(0.5, 0.4, 0.45, 0.4).exhausted(None)
    assert not after(0.5, 0.6, 0.4).exhausted(1)


def test_losses_over_fewer_hospitals_neither_win_nor_count():
    selection = after(0.5).judged(1, 2, sums(0.1))
    assert (selection.best, selection.since) == (0, 0)


def test_the_first_that_more_hospitals_judge_begin_anew():
    selection = after(0.5, 0.6, silos=2).judged(2, 3, sums(0.9))
    assert selection == Selection(best=2, loss=0.9, silos=3)


def test_a_sum_without_held_out_views_decides_nothing():
    assert after(0.5).judged(1, 3, {}) == after(0.5) == after(0.5).judged(1, 3, sums(0.0, views=0.0))


def test_it_is_kept_in_a_file_and_read_again():
    selection = after(0.5, 0.4, 0.45)
    assert Selection(**selection.content()) == selection


def test_the_weights_that_were_chosen_are_kept():
    best, weights = Best.none(), [np.full(2, number, np.float32) for number in range(3)]
    for number, loss in enumerate((0.5, 0.3, 0.4)):
        best = best.judged(number, weights[number], 3, sums(loss))
    assert best.selection.best == 1
    assert best.weights is weights[1]
