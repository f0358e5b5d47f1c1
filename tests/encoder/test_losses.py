import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from silo_app.encoder.losses import (
    contrastive_loss,
    findings_loss,
    known_loss,
    prototype_loss,
    proximal_loss,
    smoothed,
    twins_loss,
)


def test_unknown_findings_have_no_part_in_the_loss_or_its_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    known = torch.tensor([[True, False], [True, False]])
    loss = findings_loss(logits, targets, known)
    loss.backward()
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)
    assert (logits.grad[:, 1] == 0).all()
    assert (logits.grad[:, 0] != 0).all()


def test_nothing_known_costs_nothing():
    known = torch.zeros(2, 3, dtype=torch.bool)
    assert findings_loss(torch.ones(2, 3), torch.ones(2, 3), known) == 0
    assert known_loss(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), known.numpy()) is None


def test_a_finding_is_taught_as_hard_beside_others_as_alone_and_in_few_views_as_in_many():
    logits = torch.zeros(4, 3, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 1.0]] * 4)
    known = torch.tensor([[True, True, True], [True, True, False], [True, True, False], [True, False, False]])
    findings_loss(logits, targets, known).backward()
    together = logits.grad.clone()
    for finding in range(3):
        logits.grad = None
        findings_loss(logits[:, [finding]], targets[:, [finding]], known[:, [finding]]).backward()
        torch.testing.assert_close(logits.grad[:, finding], together[:, finding])
    torch.testing.assert_close(together.sum(dim=0), torch.tensor([-0.5, 0.5, -0.5]))


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_smoothed_findings_cost_least_at_the_odds_that_smoothing_leaves(share):
    targets = torch.tensor([[1.0], [0.0]])
    known = torch.ones_like(targets, dtype=torch.bool)
    sure = torch.tensor(1 - share / 2).logit()
    at = findings_loss(torch.stack([sure, -sure])[:, None], smoothed(targets, share), known)
    for other in (0.5, 2.0):
        assert findings_loss(other * torch.stack([sure, -sure])[:, None], smoothed(targets, share), known) >= at


def test_without_smoothing_findings_stay_as_they_are():
    targets = torch.tensor([[1.0, 0.0], [0.3, 1.0]])
    assert torch.equal(smoothed(targets, 0.0), targets)


def test_the_loss_that_is_told_is_a_mean_over_all_that_is_known():
    logits = np.array([[0.0, 9.0], [0.0, 0.0]], np.float32)
    known = np.array([[True, True], [True, False]])
    assert known_loss(logits, np.zeros((2, 2), np.float32), known) == pytest.approx((2 * np.log(2) + 9.0001) / 3, abs=1e-3)


def contrast(embedding, targets, known=None):
    targets = torch.tensor(targets, dtype=torch.float32)
    known = torch.ones_like(targets, dtype=torch.bool) if known is None else torch.tensor(known)
    return contrastive_loss(torch.tensor(embedding), targets, known, 0.1)


def test_a_present_finding_counts_by_its_weight_and_the_scale_stays():
    logits, targets = torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0], [0.0]])
    known = torch.ones(2, 1, dtype=torch.bool)
    right, wrong = (findings_loss(logits[i : i + 1], targets[i : i + 1], known[:1]).item() for i in (0, 1))
    weighted = findings_loss(logits, targets, known, torch.tensor([3.0])).item()
    assert weighted == pytest.approx((3 * right + wrong) / 4)


APART = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
MIXED = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]


def test_like_views_together_cost_less_than_like_views_apart():
    labels = [[1], [1], [0], [0]]
    assert contrast(APART, labels) < 0.1 < contrast(MIXED, labels)


def test_length_does_not_matter():
    labels = [[1], [1], [0], [0]]
    doubled = [[2 * x for x in row] for row in APART]
    assert contrast(doubled, labels) == pytest.approx(contrast(APART, labels).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("targets", "known"),
    [
        ([[1], [0]], [[True], [True]]),  # no two alike
        ([[1], [1]], [[True], [False]]),  # nothing known of both
        ([[1, 0], [0, 1]], [[True, True], [True, True]]),  # each has what the other has not
        ([[1, 0], [0, 0]], [[True, True], [True, True]]),  # one has nothing
    ],
)
def test_without_two_alike_there_is_nothing_to_pull(targets, known):
    assert contrast([[1.0, 0.0], [0.0, 1.0]], targets, known) == 0


def log_shares(unit, temperature):
    """Return the log of each other view's share in what a view is near to, (B, B), as the contrast's paper has it."""
    near = (unit @ unit.T / temperature).masked_fill(torch.eye(len(unit), dtype=torch.bool), -1e9)
    return near - near.logsumexp(dim=1, keepdim=True)


def test_a_view_is_pulled_by_how_much_of_what_either_has_both_have():
    """A view with one finding, and three others: with the same, with that and one more, with another."""
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    known = torch.ones(4, 3, dtype=torch.bool)
    share = log_shares(embedding, 0.5)
    first = -(share[0, 1] + share[0, 2] / 2) / 1.5
    second = -(share[1, 0] + share[1, 2] / 2) / 1.5
    third = -(share[2, 0] + share[2, 1]) / 2
    torch.testing.assert_close(contrastive_loss(embedding, targets, known, 0.5), (first + second + third) / 3)


@given(
    targets=arrays(np.float32, (5, 1), elements=st.sampled_from([0.0, 1.0])),
    known=arrays(np.bool_, (5, 1)),
)
def test_of_one_finding_views_are_alike_or_not(targets, known):
    """Then it is supervised contrast as it was published: the mean over the views with the same label."""
    unit = torch.nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)))
    given_targets, given_known = torch.from_numpy(targets), torch.from_numpy(known)
    share = log_shares(unit, 0.1)
    same = (targets == targets.T) & known & known.T & ~np.eye(5, dtype=bool)
    each = [-share[i][torch.from_numpy(same[i])].mean() for i in range(5) if same[i].any()]
    wanted = torch.stack(each).mean() if each else torch.tensor(0.0)
    torch.testing.assert_close(contrastive_loss(unit, given_targets, given_known, 0.1), wanted)


def test_views_are_alike_when_what_is_known_of_both_agrees():
    known = [[True, True], [True, False]]
    assert contrast([[1.0, 0.0], [0.0, 1.0]], [[1, 1], [1, 0]], known) == pytest.approx(0, abs=1e-6)  # the only other


PROTOTYPES = torch.eye(2, 4)


def test_a_view_at_its_finding_s_prototype_costs_less_than_one_at_the_other_s():
    targets, known = torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool)
    right, wrong = (prototype_loss(PROTOTYPES[i][None], PROTOTYPES, targets, known, 0.1) for i in (0, 1))
    assert right < wrong


def test_prototypes_draw_a_view_to_present_findings_only_where_they_are_known():
    embedding = torch.full((1, 4), 0.5, requires_grad=True)
    prototype_loss(embedding, PROTOTYPES, torch.ones(1, 2), torch.tensor([[True, False]]), 0.1).backward()
    assert embedding.grad[0, 0] < 0  # descent goes towards the known finding
    assert embedding.grad[0, 1] > 0  # and away from where it is not, the unknown finding's prototype included


def test_the_length_of_an_embedding_does_not_count_for_prototypes():
    embedding, targets = torch.rand(3, 4), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    known = torch.ones(3, 2, dtype=torch.bool)
    short, long = (prototype_loss(embedding * by, PROTOTYPES, targets, known, 0.1) for by in (1, 9))
    assert torch.allclose(short, long, atol=1e-5)


def test_prototypes_cost_nothing_where_nothing_is_known():
    assert prototype_loss(torch.rand(2, 4), PROTOTYPES, torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool), 0.1) == 0


def test_the_proximal_loss_is_zero_at_the_start_and_its_gradient_the_distance():
    start = [torch.tensor([1.0, 2.0])]
    weights = [torch.tensor([3.0, 2.0], requires_grad=True)]
    loss = proximal_loss(weights, start)
    loss.backward()
    assert loss.item() == 2
    assert weights[0].grad.tolist() == [2, 0]
    assert proximal_loss(start, start) == 0


def test_twins_cost_what_the_paper_s_formula_says():
    """NT-Xent written out, one anchor after the other; view 1 has labels, and is only pushed from."""
    generator = torch.Generator().manual_seed(0)
    embedding, twins = (torch.randn(n, 5, generator=generator) for n in (3, 2))
    rows, temperature = torch.tensor([0, 2]), 0.5
    everything = torch.nn.functional.normalize(torch.cat([embedding, twins]))
    costs = []
    for anchor, partner in ((0, 3), (2, 4), (3, 0), (4, 2)):
        near = [float(everything[anchor] @ other) / temperature for other in everything]
        against = sum(np.exp(value) for place, value in enumerate(near) if place != anchor)
        costs.append(-np.log(np.exp(near[partner]) / against))
    assert twins_loss(embedding, twins, rows, temperature).item() == pytest.approx(np.mean(costs), rel=1e-5)


def test_twins_that_are_alike_cost_less_than_exchanged_ones():
    embedding, rows = torch.eye(4), torch.arange(4)
    alike, exchanged = (twins_loss(embedding, other, rows, 0.1).item() for other in (torch.eye(4), torch.eye(4).flip(0)))
    assert alike < 0.01 < exchanged
