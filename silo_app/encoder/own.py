"""What a silo keeps for itself while it trains: personal weights, its control variate of SCAFFOLD, its gradients' sizes.

Personal weights never leave: they are not in the layout of what is encrypted. `personal` of the plan says which:

- "head": the findings head. Hospitals label differently; what they share is the embedding (Collins et al., "Exploiting
  shared representations for personalized federated learning", ICML 2021).
- "ditto": a whole network beside the shared one, held near it (Li et al., "Ditto", ICML 2021).
- "tuned": a copy of the shared network, trained on by the silo alone in the job's last rounds (`tuning`).

SCAFFOLD (Karimireddy et al., ICML 2020) corrects the drift of unlike silos: to every gradient a silo adds what all silos'
gradients are on average (c) less what its own are (c_i). c_i stays; its change travels as the second half of the encrypted
vector. The mean squared gradients of the silo's last round are what its next optimizer goes on from (`optimizer`).
Everything here is taken over only when the sum that contains the silo's update is opened, so that a round that
is made again after a crash starts from the same.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["WHOLE_NETWORKS", "Own", "Personal", "shared_size"]

Personal = Literal["none", "head", "ditto", "tuned"]
WHOLE_NETWORKS: tuple[Personal, ...] = ("ditto", "tuned")
"""The kinds of personal weights that are a network beside the shared one."""
_NOTHING = np.zeros(0, np.float32)
_HEAD = ("findings.weight", "findings.bias")


def shared_size(layout: list[tuple[str, tuple[int, ...]]], personal: Personal) -> int:
    """Return how many of the flat vector's first values are shared, of a network with tensors `layout` (name, shape)."""
    names = [name for name, _ in layout]
    if personal == "head" and tuple(names[-len(_HEAD) :]) != _HEAD:
        raise ValueError(f"the findings head is not at the end of {names}")
    kept = layout[: -len(_HEAD)] if personal == "head" else layout
    return sum(int(np.prod(shape)) for _, shape in kept)


@dataclass(frozen=True)
class Own:
    """Immutable; an array without values where the plan wants nothing of the kind."""

    personal: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    """Personal weights, float32 (H,); none before the first round."""
    control: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    """c_i, the mean gradient of this silo's last round that counted, float32 (P,)."""
    shared_control: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    """c, the weighted mean of all silos' control variates, float32 (P,)."""
    squares: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    """Mean squared gradients after the silo's last round that counted (`optimizer.Squares`); none before the first."""
    next_personal: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    """As after the update that was sent last, whose sum is not opened yet."""
    next_control: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    next_squares: NDArray[np.float32] = field(default_factory=_NOTHING.copy)

    @classmethod
    def begun(cls, size: int, *, scaffold: bool) -> Self:
        """Return what a silo has before the first round of `size` shared weights."""
        return cls(control=np.zeros(size, np.float32), shared_control=np.zeros(size, np.float32)) if scaffold else cls()

    @property
    def correction(self) -> NDArray[np.float32]:
        """What is added to every gradient, c - c_i, float32 (P,)."""
        return self.shared_control - self.control

    def trained(
        self, personal: NDArray[np.float32], control: NDArray[np.float32], squares: NDArray[np.float32] = _NOTHING
    ) -> Self:
        """Return it after a round of training, to be taken over when its sum is opened."""
        return replace(self, next_personal=personal, next_control=control, next_squares=squares)

    def sent(self, update: NDArray[np.float32], done: float) -> NDArray[np.float32]:
        """Return what is encrypted: the update, float32 (P,), and with SCAFFOLD the change of c_i behind it, (2P,).

        The change is c_i's whole, although a silo that counts for the share `done` of its images weighs less by it: so c
        stays the mean of all control variates. It is the share that is counted, in whole images.
        """
        if not len(self.control):
            return update
        return np.concatenate([update, (self.next_control - self.control) / np.float32(done)])

    def closed(self, change: NDArray[np.float32], *, share: float, contributed: bool) -> Self:
        """Return it after a sum with the mean `change` of the control variates, (P,) or (0,); its silos weigh `share`."""
        taken = self
        if contributed:
            taken = replace(
                taken,
                personal=self.next_personal if len(self.next_personal) else self.personal,
                control=self.next_control if len(self.next_control) else self.control,
                squares=self.next_squares if len(self.next_squares) else self.squares,
            )
        if len(change):
            taken = replace(taken, shared_control=self.shared_control + np.float32(share) * change)
        return replace(taken, next_personal=_NOTHING, next_control=_NOTHING, next_squares=_NOTHING)

    def voided(self) -> Self:
        """Return it after a round without a sum."""
        return replace(self, next_personal=_NOTHING, next_control=_NOTHING, next_squares=_NOTHING)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return its arrays by name, for a private file."""
        return {name: getattr(self, name) for name in type(self).__dataclass_fields__}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]]) -> Self:
        """Return it from what `tensors` gave. Raises `KeyError`."""
        return cls(**{name: tensors[name] for name in cls.__dataclass_fields__})
