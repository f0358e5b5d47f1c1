"""What training minimises: findings that are known, and embeddings that stand near their like."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = [
    "contrastive_loss",
    "each_findings_loss",
    "findings_loss",
    "known_loss",
    "prototype_loss",
    "proximal_loss",
    "smoothed",
    "twins_loss",
]

_NEVER = -1e9
_TINY = 1e-6


def findings_loss(logits: Tensor, targets: Tensor, known: Tensor, positive_weight: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of each finding, its mean over the views of which it is known, summed over findings.

    (B, F) each; 0 if nothing is known. `positive_weight` (F,) says how much a present finding counts; the mean is over the
    weights, so that the scale stays. A sum, because a mean over findings would let a silo that knows fourteen teach each
    of them a fourteenth as hard as one that knows only that one, and less than its contrast.
    """
    each = _cross_entropy(logits, targets)
    weight = known.float()
    if positive_weight is not None:
        weight = weight * torch.where(targets > 0.5, positive_weight, 1.0)
    return ((each * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=_TINY)).sum()


def smoothed(targets: Tensor, share: float) -> Tensor:
    """Return `targets` (B, F) moved from certain to even by a share (label smoothing: Szegedy et al., CVPR 2016)."""
    return targets + share * (0.5 - targets)


def each_findings_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return every view's own mean over what is known of it, (B,); `logits`, `targets`, `known` (B, F). 0 if nothing is."""
    each = _cross_entropy(logits, targets)
    weight = known.float()
    return (each * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def known_loss(logits: NDArray[np.float32], targets: NDArray[np.float32], known: NDArray[np.bool_]) -> float | None:
    """Return the mean binary cross-entropy over all that is known, of arrays (N, F); None if nothing is."""
    if not known.any():
        return None
    each = _cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    return float(each[torch.from_numpy(known)].mean())


def contrastive_loss(embedding: Tensor, targets: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Pull together views that share what is known of them, by how much they share, and push apart the others.

    Supervised contrast (Khosla et al. 2020, L_out), with views (B) alike by their Jaccard index: the findings that both
    have as a share of those that either has, of the findings known of both; 1 if neither has any. Only views with exactly
    the same findings would leave most with several findings without any like them. `embedding` (B, D), `targets` and
    `known` (B, F). 0 if no two views are alike.
    """
    unit = functional.normalize(embedding)  # (B, D)
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)  # (B, B)
    similarity = (unit @ unit.T / temperature).masked_fill(~others, _NEVER)
    log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
    alike = _alike(targets > 0.5, known) * others
    total = alike.sum(dim=1)  # (B,)
    has = total > 0
    if not has.any():
        return embedding.sum() * 0
    return -((log_share * alike).sum(dim=1)[has] / total[has]).mean()


def _alike(present: Tensor, known: Tensor) -> Tensor:
    """Return how alike views (B, F) are, float32 (B, B), in [0, 1]; 0 where no finding is known of both."""
    there, told = (present & known).float(), known.float()
    shared = there @ there.T
    either = there @ told.T + told @ there.T - shared  # of what is known of both: one has it, the other has it, less both
    jaccard = torch.where(either > 0, shared / either.clamp(min=1), 1.0)
    return jaccard * (told @ told.T > 0)


def twins_loss(embedding: Tensor, twins: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Pull the two augmentations of each of some views together, and push them from all others of the batch.

    NT-Xent of SimCLR (Chen et al., ICML 2020), without its extra head: the embedding itself is searched by angle.
    `embedding` (B, D) is of the batch, `twins` (U, D) of a second augmentation of the views `rows` (U,), int64. Views that
    are not in `rows` are only pushed from. Needs U of at least 1 and B of at least 2.
    """
    unit = functional.normalize(torch.cat([embedding, twins]))  # (B + U, D)
    second = torch.arange(len(embedding), len(unit), device=unit.device)
    anchors, partners = torch.cat([rows, second]), torch.cat([second, rows])  # (2U,)
    similarity = unit[anchors] @ unit.T / temperature  # (2U, B + U)
    itself = functional.one_hot(anchors, len(unit)).bool()
    return functional.cross_entropy(similarity.masked_fill(itself, _NEVER), partners)


def prototype_loss(embedding: Tensor, prototypes: Tensor, targets: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Pull views towards the prototypes of the findings they have, and push them from those known to be absent.

    `embedding` (B, D), `prototypes` (F, D), `targets` and `known` (B, F). The findings of one view are balanced against
    each other by kind: present and absent ones weigh the same over the batch. 0 if nothing is known.
    """
    cosine = functional.normalize(embedding) @ functional.normalize(prototypes).T  # (B, F)
    each = _cross_entropy(cosine / temperature, targets)
    sides = [known & (targets > 0.5), known & (targets <= 0.5)]
    means = [each[side].mean() for side in sides if side.any()]
    return torch.stack(means).mean() if means else embedding.sum() * 0


def proximal_loss(weights: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    """Return half the squared distance from the round's start (FedProx: Li et al., MLSys 2020)."""
    return 0.5 * torch.stack([((now - then) ** 2).sum() for now, then in zip(weights, start, strict=True)]).sum()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of every logit by itself."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
