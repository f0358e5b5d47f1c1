"""From radiographs to embeddings with a silo's encoder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from silo_app.cases import Embedding, EncoderVersion
from silo_app.encoder import checkpoint
from silo_app.encoder.devices import device_for
from silo_app.encoder.looks import FindingsHead, Look
from silo_app.encoder.model import Encoder, encoder_of
from silo_app.encoder.parts import in_parts
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.transforms import squared, standardised
from silo_app.imaging.cache import as_cached
from silo_app.imaging.radiograph import read_radiograph

__all__ = ["LoadedEncoder", "embed", "load_encoder"]

_BATCH = 64


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder that can embed."""

    spec: EncoderSpec
    model: Encoder
    version: EncoderVersion
    look: Look | None = None
    """The silo's, which is taken out of all embeddings; None for embeddings as the network makes them."""

    def radiographs(self, radiographs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return unit embeddings, float32 (N, D), of radiographs, each float32 (H, W) in [0, 1]."""
        pixels = np.stack([squared(radiograph, self.spec.input_size) for radiograph in radiographs])
        vectors = embed(self.model, pixels)[0]
        return vectors if self.look is None else self.look.removed(vectors)

    def file(self, path: Path) -> Embedding:
        """Return the unit embedding, float32 (D,), of a DICOM file. Raises `ImageUnsupported`."""
        embedding: Embedding = self.radiographs([as_cached(read_radiograph(path))])[0]
        return embedding

    def without(self, look: Look) -> Self:
        """Return the encoder that takes a look out of what it embeds."""
        return replace(self, look=look)

    @property
    def head(self) -> FindingsHead | None:
        """What an index needs to take the silo's look out of these embeddings; None if looks are kept."""
        if self.spec.looks == "kept":
            return None
        return FindingsHead(self.spec, self.model.head())


def load_encoder(models: Path, version: EncoderVersion | None = None, *, device: str = "cpu") -> LoadedEncoder:
    """Load a version, or the one in use, onto a device (`devices_for`). Raises `NotReady`, `CheckpointInvalid`."""
    kept = checkpoint.load(models, version or checkpoint.current_version(models))
    model = encoder_of(kept.spec, kept.vector, device_for(device))
    return LoadedEncoder(kept.spec, model.eval(), kept.version)


@torch.inference_mode()
def embed(
    model: Encoder, pixels: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit embeddings (N, D) and findings' logits (N, F), float32, of network inputs, uint8 (N, S, S).

    Where a graphics processor's memory is short, fewer are passed at once. Raises `NotReady` if it does not hold one.
    """
    model.eval()
    embeddings = [np.empty((0, model.embedding.out_features), np.float32)]
    logits = [np.empty((0, model.findings.out_features), np.float32)]
    done = 0
    at_once: int | None = None
    while done < len(pixels):
        (embedding, logit), at_once = in_parts(partial(_passed, model, pixels[done:]), at_once, batch=_BATCH)
        embeddings.append(embedding)
        logits.append(logit)
        done += len(embedding)
        if progress is not None:
            progress(done, len(pixels))
    return np.concatenate(embeddings), np.concatenate(logits)


def _passed(
    model: Encoder, pixels: NDArray[np.uint8], at_once: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit embeddings and logits of the first `at_once` of `pixels`, of the first `_BATCH` for None."""
    batch = torch.from_numpy(pixels[: at_once or _BATCH])[:, None].to(model.device)
    embedding, logit = model(standardised(batch))
    return functional.normalize(embedding).cpu().numpy(), logit.cpu().numpy()
