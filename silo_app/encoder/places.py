"""An embedding as a mean over the places of its image: why two images are similar, and the embedding of a region.

Pooling and projection are linear (`model.Encoder`), so that with F the feature map, W and b the projection

    e = W mean(F) + b = mean over x, y of (W F[x, y] + b),        v = e / |e|
    <v, u> = mean over x, y of <W F[x, y] + b, u> / |e|           for any unit vector u

exactly, bias and norm included: every place's share in a cosine similarity, without gradients and approximations (class
activation maps, Zhou et al., CVPR 2016, with an embedding in a class's place; Stylianou, Souvenir and Pless, WACV 2019).
A place sees more of the image than its cell: the map says where the network's features lie, not which pixels made them.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from silo_app.cases import Embedding
from silo_app.encoder.embed import LoadedEncoder
from silo_app.encoder.region import Region, cell_weights
from silo_app.encoder.transforms import squared, standardised
from silo_app.errors import EncoderMismatch

__all__ = ["region_embedding", "similarity_map"]


def similarity_map(encoder: LoadedEncoder, radiograph: NDArray[np.float32], other: Embedding) -> NDArray[np.float32]:
    """Return each place's share in the similarity of a radiograph (H, W) in [0, 1] to a unit vector (D,), float32 (h, w).

    Its mean is the cosine similarity of the radiograph's embedding and `other`. It lies over the radiograph padded to a
    square (`region.over_radiograph` cuts it back); h and w are the input size divided by the network's stride. Raises
    `EncoderMismatch` if `other` has another dimension.
    """
    if other.shape != (encoder.spec.embedding_dim,):
        raise EncoderMismatch(
            f"the other vector has shape {other.shape}, this encoder's have ({encoder.spec.embedding_dim},)",
            remedy="Embed both images with one encoder.",
        )
    places = _places(encoder, radiograph)  # (h, w, D)
    shares: NDArray[np.float64] = places @ other.astype(np.float64) / np.linalg.norm(places.mean(axis=(0, 1)))
    return shares.astype(np.float32)


def region_embedding(encoder: LoadedEncoder, radiograph: NDArray[np.float32], region: Region) -> Embedding:
    """Return the unit embedding, float32 (D,), of a region of a radiograph (H, W): pooled over it instead of over all.

    Each cell of the feature map counts by its area in the region, so that the whole image gives its own embedding where
    nothing is padded. The network has seen the whole image: the region keeps its scale and surroundings.
    """
    places = _places(encoder, radiograph)  # (h, w, D)
    weights = cell_weights(region, (radiograph.shape[0], radiograph.shape[1]), (places.shape[0], places.shape[1]))
    pooled = np.tensordot(weights, places, axes=2)  # (D,)
    return np.asarray(pooled / np.linalg.norm(pooled), np.float32)


@torch.inference_mode()
def _places(encoder: LoadedEncoder, radiograph: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return W F[x, y] + b, float64 (h, w, D), without the look: the embedding before it is normalised is their mean."""
    model = encoder.model.eval()
    pixels = torch.from_numpy(squared(radiograph, encoder.spec.input_size))[None, None]
    maps = model.maps(standardised(pixels))  # (1, C, h, w)
    weight, bias = model.embedding.weight.double(), model.embedding.bias.double()  # (D, C), (D,)
    places = torch.einsum("dc,cyx->yxd", weight, maps[0].double()) + bias
    found: NDArray[np.float64] = places.numpy()
    return found if encoder.look is None else encoder.look.transformed(found / np.linalg.norm(found.mean(axis=(0, 1))))
