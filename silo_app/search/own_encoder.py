"""The silo's encoder as its index uses it, for everything that asks: embeddings without the silo's look."""

from typing import TYPE_CHECKING

from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome

if TYPE_CHECKING:
    from silo_app.encoder.embed import LoadedEncoder

__all__ = ["own_encoder"]


def own_encoder(home: SiloHome, version: EncoderVersion | None = None) -> "LoadedEncoder":
    """Load a version, or the one in use, with the look that the silo's index learned where it takes looks out.

    Raises `NotReady` without an encoder, or without an index that was made with it if looks are taken out;
    `CheckpointInvalid`.
    """
    from silo_app.encoder.embed import load_encoder
    from silo_app.index.generations import look_in_use

    encoder = load_encoder(home.models, version) if version else load_encoder(home.models)
    return encoder if encoder.head is None else encoder.without(look_in_use(home.index, encoder.version))
