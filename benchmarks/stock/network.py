"""The encoder as NVFlare's recipes want it: a module that is made from plain arguments."""

from torch import Tensor, nn

from silo_app.encoder.model import build
from silo_app.encoder.spec import EncoderSpec

__all__ = ["Network"]


class Network(nn.Module):
    """The encoder with a backbone, at the sizes of `jobs/train`."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.encoder = build(EncoderSpec.model_validate({"backbone": backbone}), 0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the findings' logits."""
        logits: Tensor = self.encoder(images)[1]
        return logits
