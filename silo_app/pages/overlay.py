"""A radiograph with a map of shares over it, as two layers of an HTML page: images inside the page, nothing to load.

Both layers have the same shape, so that the page can lay one over the other and take the map away without a script.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from silo_app.encoder.region import over_radiograph

__all__ = ["Layers", "layers"]

_SIDE = 384
"""Longer side of a drawn radiograph, pixels."""
_ABOVE, _BELOW = (64, 224, 208), (255, 140, 60)
"""Colours of shares above and below the mean, told apart with any colour vision. Nearly all shares of similar images are
positive: coloured by what they are, and not by how they differ, the whole image would be turquoise."""
_OPAQUE = 0.6
"""Of the strongest difference: the image must stay visible below it."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Two data URLs, and what the page says of them."""

    picture: str
    map: str
    similarity: float
    places: str
    width: int
    height: int


def layers(radiograph: NDArray[np.float32], shares: NDArray[np.float32], strongest: float) -> Layers:
    """Draw a radiograph (H, W) in [0, 1] and its shares (h, w); one `strongest` off the mean has the full colour."""
    scale = min(1.0, _SIDE / max(radiograph.shape))
    height, width = (max(1, round(side * scale)) for side in radiograph.shape)
    grey = Image.fromarray(np.rint(np.clip(radiograph, 0, 1) * 255).astype(np.uint8))
    differences = np.asarray(shares - shares.mean(), np.float32)
    places = f"{shares.shape[0]} x {shares.shape[1]}"
    return Layers(
        _url(grey.resize((width, height), Image.Resampling.BOX), "JPEG"),
        _url(Image.fromarray(_coloured(over_radiograph(differences, (height, width)), strongest)), "PNG"),
        float(shares.mean()),
        places,
        width,
        height,
    )


def _coloured(values: NDArray[np.float32], strongest: float) -> NDArray[np.uint8]:
    """Return a colour for each value, uint8 (H, W, 4): the stronger, the less transparent."""
    strength = np.clip(np.abs(values) / max(strongest, 1e-9), 0, 1)
    colours = np.where((values >= 0)[..., None], np.array(_ABOVE), np.array(_BELOW))
    return np.concatenate([colours, np.rint(strength * _OPAQUE * 255)[..., None]], axis=-1).astype(np.uint8)


def _url(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
