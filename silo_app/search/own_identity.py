"""Under which name a silo answers: its certificate's, which its configuration has to have too."""

from silo_app.config import CONFIG_NAME, SiloHome
from silo_app.errors import ConfigInvalid
from silo_app.identity import Identity

__all__ = ["own_identity"]


def own_identity(home: SiloHome) -> Identity:
    """Load the kit's identity.

    Raises as `Identity.load` does, and `ConfigInvalid` if silo.yaml has another name: no asker would believe an answer.
    """
    identity = Identity.load(home.kit)
    if identity.name != home.config.name:
        raise ConfigInvalid(
            f"the name is {home.config.name!r}, and the certificate of this kit is of {identity.name!r}",
            where=f"{home.kit / 'local' / CONFIG_NAME}:name",
            remedy="Set the name to the certificate's (display_name is the one that people read), or take the right kit.",
        )
    return identity
