"""The encoder: a MONAI backbone with GroupNorm, global average pooling, a linear embedding, and a findings head on it.

Backbones: DenseNets (Huang et al., CVPR 2017) and the encoder half of MedNeXt, MONAI's ConvNeXt (Roy et al., MICCAI 2023).

GroupNorm has no running statistics: nothing of a hospital's look hides in buffers, federated averaging is exact, and
Opacus can take per-patient gradients (Wu and He, "Group Normalization", ECCV 2018). Pooling and projection are linear, so
the inner product of two embeddings is a mean over image positions (docs/explanation-architecture.md).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from silo_app.encoder.channels import channels_of, read
from silo_app.encoder.networks import DenseNet, MedNeXtBlock, MedNeXtDownBlock
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import CheckpointInvalid

__all__ = ["Encoder", "build", "encoder_of", "layout_of", "load_vector", "to_vector"]

_DENSENETS: dict[str, dict[str, Any]] = {
    "densenet121": {"init_features": 64, "growth_rate": 32, "block_config": (6, 12, 24, 16)},
    "densenet-medium": {"init_features": 32, "growth_rate": 16, "block_config": (2, 4, 8, 8)},
    "densenet-small": {"init_features": 16, "growth_rate": 8, "block_config": (2, 4, 4)},
}
_MEDNEXTS: dict[str, tuple[tuple[int, int], ...]] = {
    "mednext-small": ((32, 2), (64, 2), (128, 4), (256, 2)),
}
"""Channels and blocks of each stage; the side halves before every one."""


class Encoder(nn.Module):
    """`forward(images (B, 1, S, S)) -> (embedding (B, D), logits (B, F))`; the embedding is not normalised."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self._contrasts = spec.channels == "contrasts"
        self.features, channels = _densenet(spec) if spec.backbone in _DENSENETS else _mednext(spec)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.embedding = nn.Linear(channels, spec.embedding_dim)
        self.findings = nn.Linear(spec.embedding_dim, len(spec.findings))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings and the findings' logits."""
        embedding = self.embedding(self.pool(self.maps(images)).flatten(1))  # (B, D)
        return embedding, self.findings(embedding)

    def maps(self, images: Tensor) -> Tensor:
        """Return what the backbone makes of images, (B, C, h, w), before it is pooled."""
        return nn.functional.relu(self.features(read(images) if self._contrasts else images))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.findings.weight.device

    def head(self) -> NDArray[np.float32]:
        """Return the rows by which the findings are read, float32 (F, D)."""
        rows: NDArray[np.float32] = self.findings.weight.detach().cpu().numpy()
        return rows


def _densenet(spec: EncoderSpec) -> tuple[nn.Module, int]:
    """Return what makes feature maps (B, C, h, w) of images, and C."""
    network = DenseNet(
        spatial_dims=2,
        in_channels=channels_of(spec.channels),
        out_channels=spec.embedding_dim,
        norm=("group", {"num_groups": 8}),
        act=("relu", {"inplace": False}),  # Opacus' hooks need the activations as they were
        **_DENSENETS[spec.backbone],
    )
    return network.features, network.class_layers.out.in_features


def _mednext(spec: EncoderSpec) -> tuple[nn.Module, int]:
    """Return what makes feature maps (B, C, h, w) of images, and C; h and w are a sixteenth of the image's side.

    MedNeXt normalises each channel by itself, which leaves nothing of a map of one pixel: 32 px become 2 x 2.
    """
    (channels, _), *_ = stages = _MEDNEXTS[spec.backbone]
    layers: list[nn.Module] = [nn.Conv2d(channels_of(spec.channels), channels, 3, stride=2, padding=1)]
    for number, (width, blocks) in enumerate(stages):
        if number:
            layers.append(MedNeXtDownBlock(channels, width, 2, 5, use_residual_connection=True, dim="2d"))
        layers += [MedNeXtBlock(width, width, 2, 5, dim="2d") for _ in range(blocks)]
        channels = width
    return nn.Sequential(*layers, nn.GroupNorm(8, channels)), channels


def build(spec: EncoderSpec, seed: int) -> Encoder:
    """Return an encoder whose start weights depend on `spec` and `seed` only, whoever builds it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(spec)


def encoder_of(spec: EncoderSpec, vector: NDArray[np.float32], device: torch.device) -> Encoder:
    """Return the encoder with the weights `vector`, float32 (P,), on a device. Raises `CheckpointInvalid`."""
    model = build(spec, seed=0).to(device)
    load_vector(model, vector)
    return model


def layout_of(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape of every tensor, in the order of the flat vector."""
    return [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


def to_vector(model: nn.Module) -> NDArray[np.float32]:
    """Return all weights as one vector, float32 (P,)."""
    flat = torch.cat([tensor.detach().float().ravel() for tensor in model.state_dict().values()])
    vector: NDArray[np.float32] = flat.cpu().numpy()  # one copy from a graphics processor, not one for each tensor
    return vector


def load_vector(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Write `vector`, float32 (P,), into the model. Raises `CheckpointInvalid` if it has another size."""
    state = model.state_dict()
    if vector.shape != (sum(tensor.numel() for tensor in state.values()),):
        raise CheckpointInvalid(
            f"{vector.shape} values for a network of {sum(t.numel() for t in state.values())}",
            remedy="The weights are of another network; train or copy the encoder again.",
        )
    device = next(iter(state.values())).device
    values = torch.from_numpy(np.array(vector, np.float32)).to(device)
    parts = torch.split(values, [tensor.numel() for tensor in state.values()])
    model.load_state_dict({name: part.reshape(state[name].shape) for name, part in zip(state, parts, strict=True)})
