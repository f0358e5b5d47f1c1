"""What whoever asks the hospitals is told beside the answer."""

from silo_app.cases import EncoderVersion
from silo_app.cli.edge import people
from silo_app.config import SiloHome

__all__ = ["tell_encoder"]


def tell_encoder(home: SiloHome, asked_with: EncoderVersion) -> None:
    """Say so where a query was asked with an older encoder than the silo's current one, because its index is of that."""
    from silo_app.encoder.checkpoint import current_version

    if (current := current_version(home.models)) != asked_with:
        people.print(
            f"Searched with encoder {asked_with[:12]} until the index is built with {current[:12]}: silo index build",
            highlight=False,
            soft_wrap=True,
        )
