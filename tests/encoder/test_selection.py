"""Which weights are kept, and when nobody waits for better ones: the same in every silo that opened the same sums."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.selection import Best, Selection

ABC, AB, ABD = ("a", "b", "c"), ("a", "b"), ("a", "b", "d")


def sums(loss, known=8.0):
    return {"held_out_known": known, "held_out_loss_known": loss * known}


def after(*losses, silos=ABC):
    selection = Selection()
    for weights, loss in enumerate(losses):
        selection = selection.judged(weights, silos, sums(loss))
    return selection


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=12))
def test_the_smallest_loss_is_kept_and_the_first_among_equals(losses):
    selection = after(*losses)
    assert selection.best == losses.index(min(losses))
    assert selection.candidates[0].since == len(losses) - 1 - selection.best


def test_patience_counts_weights_that_were_no_better():
    assert not after(0.5, 0.4, 0.45).exhausted(2)
    assert after(0.5, 0.4, 0.45, 0.4).exhausted(2)
    assert not after(0.5, 0.4, 0.45, 0.4).exhausted(None)
    assert not after(0.5, 0.6, 0.4).exhausted(1)
    assert not Selection().exhausted(1)


def test_losses_over_fewer_hospitals_neither_win_nor_count():
    selection = after(0.5).judged(1, AB, sums(0.1))
    assert selection.best == 0
    assert not selection.exhausted(1)


def test_losses_over_as_many_other_hospitals_neither_win_nor_count():
    """Weights get better with every round; only the hospitals that judge them change, and some are hard to tell."""
    selection, losses = after(0.5), {ABC: 0.5, ABD: 0.9}
    for weights in range(1, 30):
        selection = selection.judged(weights, (ABC, ABD)[weights % 2], sums(losses[(ABC, ABD)[weights % 2]] * 0.98**weights))
    assert selection.best == 28
    assert not selection.exhausted(1)


def test_a_hospital_that_is_gone_is_not_waited_for():
    selection = after(0.5)
    for weights, loss in enumerate((0.9, 0.7, 0.8, 0.8), start=1):
        selection = selection.judged(weights, AB, sums(loss))
        assert selection.best == 0
    selection = selection.judged(5, AB, sums(0.8))
    assert selection.best == 2
    assert selection.exhausted(3)


def test_a_hospital_that_comes_back_finds_what_all_had_chosen():
    selection = after(0.6, 0.4)
    for weights in range(2, 8):
        selection = selection.judged(weights, AB, sums(0.3))
    assert selection.best == 2
    assert selection.judged(8, ABC, sums(0.9)).best == 1


def test_where_ever_others_are_missing_what_all_judged_counts():
    """Each of the sums that lack somebody lacks somebody else: nobody is gone."""
    selection = after(0.5, 0.4)
    for weights in range(2, 40):
        missing = ABC[weights % 3]
        selection = selection.judged(weights, set(ABC) - {missing}, sums(0.9))
    assert selection.best == 1
    assert len(selection.candidates) == 2


def test_a_hospital_that_was_there_once_does_not_decide():
    selection = after(0.5, 0.4).judged(2, (*ABC, "d"), sums(0.9))
    assert selection.best == 2
    for weights in range(3, 8):
        selection = selection.judged(weights, ABC, sums(0.6))
    assert selection.best == 1


def test_hospitals_in_another_order_are_the_same():
    assert after(0.5).judged(1, ABC[::-1], sums(0.4)).best == 1


def test_the_first_that_more_hospitals_judge_begin_anew():
    selection = after(0.5, 0.6, silos=AB).judged(2, ABC, sums(0.9))
    assert selection.best == 2
    assert not selection.exhausted(1)


def test_a_sum_without_held_out_labels_decides_nothing():
    assert after(0.5).judged(1, ABC, {}) == after(0.5) == after(0.5).judged(1, ABC, sums(0.0, known=0.0))


def test_it_is_kept_in_a_file_and_read_again():
    selection = after(0.5, 0.4, 0.45).judged(3, AB, sums(0.2))
    assert Selection.of(json.loads(json.dumps(selection.content()))) == selection


def test_what_an_earlier_version_kept_begins_anew():
    assert Selection.of({"best": 3, "loss": 0.4, "silos": 3, "since": 1}) == Selection() == Selection.of({})
    assert Best.of({"best": -1, "silos": 0}, np.empty(0, np.float32)).weights.size == 0


@given(st.lists(st.tuples(st.sampled_from([ABC, AB, ABD, (*ABC, "d")]), st.floats(0.1, 1)), max_size=30))
def test_the_weights_that_were_chosen_are_kept(judged):
    best, resumed = Best.none(), Best.none()
    for number, (silos, loss) in enumerate(judged):
        vector = np.full(2, number, np.float32)
        best, resumed = (one.judged(number, vector, silos, sums(loss)) for one in (best, resumed))
        resumed = Best.of(json.loads(json.dumps(resumed.selection.content())), resumed.flat)
        assert best.weights.tolist() == resumed.weights.tolist() == [best.selection.best] * 2
        assert best.selection == resumed.selection
        mine = min((told, weights) for weights, (those, told) in enumerate(judged[: number + 1]) if those == silos)
        assert mine[0] <= loss
