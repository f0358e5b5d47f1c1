"""The silo's encoder as its index uses it, for everything that asks: embeddings without the silo's look.

What is asked with is the encoder of the index in use, and not the newest one: a training makes an encoder current at once,
and until the index is built with it, neither this silo nor its look can be searched by it.
"""

from typing import TYPE_CHECKING

from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome
from silo_app.encoder import checkpoint
from silo_app.index.generations import encoder_in_use, look_in_use

if TYPE_CHECKING:
    from silo_app.encoder.embed import LoadedEncoder

__all__ = ["asking_version", "own_encoder"]


def asking_version(home: SiloHome) -> EncoderVersion:
    """Return the encoder to ask with: that of the index in use, or the current one where the silo has no such index.

    Raises `NotReady` without an encoder.
    """
    used = encoder_in_use(home.index)
    return used if used in checkpoint.versions(home.models) else checkpoint.current_version(home.models)


def own_encoder(home: SiloHome, version: EncoderVersion | None = None) -> "LoadedEncoder":
    """Load a version, or the one to ask with, with the look that the silo's index learned where it takes looks out.

    Raises `NotReady` without an encoder, or without an index that was made with it if looks are taken out;
    `CheckpointInvalid`.
    """
    from silo_app.encoder.embed import load_encoder

    encoder = load_encoder(home.models, version or asking_version(home))
    return encoder if encoder.head is None else encoder.without(look_in_use(home.index, encoder.version))
