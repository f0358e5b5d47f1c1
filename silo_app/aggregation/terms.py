"""What all messages of a job rest on at one silo, and how it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.codec import FieldPlan
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.progress import Progress
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.wire import Header
from silo_app.errors import RoundRefused, UpdateRefused

__all__ = ["PLAIN_MODULUS", "SAMPLES", "UNUSED", "Terms"]

PLAIN_WIDTH = 32  # of float32
PLAIN_MODULUS = 1 << 64
SAMPLES = "samples"
"""The number that every message carries: how many images its silo trains on, and so its weight."""
UNUSED = "Nothing was changed. If it repeats, tell the server's operator."


@dataclass(frozen=True, slots=True)
class Terms:
    """One silo's view of a job."""

    job: str
    silo: str
    layout: Layout
    settings: AggregationSettings
    min_silos: int

    @property
    def plain(self) -> bool:
        """Whether updates travel for everybody to read."""
        return self.settings.encryption == "none"

    def width(self, progress: Progress) -> int:
        """Return the bits of a field in an update."""
        return PLAIN_WIDTH if self.plain else self.settings.width(measured=progress.measured)

    def steps(self, progress: Progress, silos: int) -> NDArray[np.float64]:
        """Return the change of a weight that the integer 1 stands for, float64 (T,), in a job of `silos`."""
        if self.plain:
            return np.zeros(len(self.layout.names))
        return progress.scales / FieldPlan(self.width(progress)).levels(silos)

    def header(self, progress: Progress, content: str, numbers: Mapping[str, float] | tuple[str, ...], key: bytes) -> Header:
        """Return the header of this silo's message of `content` in the round where `progress` stands, without body."""
        update = content == "update"
        return Header(
            kind="update",
            encryption=self.settings.encryption,
            content=content,
            job=self.job,
            round_number=progress.next_round,
            key=key,
            layout=self.layout.digest,
            size=self.layout.size if update else 0,
            bits=self.width(progress) if update else 0,
            numbers=tuple(sorted(numbers)),
            masks=b"",
            basis=progress.basis,
            participants=(self.silo,),
            silos=(self.silo,),
            body=b"",
        )

    def where(self, round_number: int) -> str:
        """Return the place that a refusal names."""
        return f"{self.silo}, job {self.job}, round {round_number}"

    def round_refused(self, round_number: int, problem: str, remedy: str = UNUSED) -> RoundRefused:
        """Return the refusal of a round."""
        return RoundRefused(f"the round was refused: {problem}", where=self.where(round_number), remedy=remedy)

    def sum_refused(self, round_number: int, problem: str) -> UpdateRefused:
        """Return the refusal of a sum."""
        return UpdateRefused(f"the sum was refused: {problem}", where=self.where(round_number), remedy=UNUSED)
