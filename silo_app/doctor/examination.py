"""All checks of a silo, one after the other; none stops another."""

from silo_app.config import SiloHome
from silo_app.doctor import holdings, kit, machine, server
from silo_app.doctor.checked import Checked, guarded

__all__ = ["examine"]


def examine(home: SiloHome) -> list[Checked]:
    """Look at everything."""
    return [
        guarded("dependencies", machine.dependencies),
        guarded("decoders", machine.decoders),
        guarded("graphics processor", machine.gpu),
        guarded("disk", lambda: machine.disk(home.root)),
        guarded("clock", lambda: kit.clock(home)),
        guarded("server's clock", lambda: server.clock(home)),
        guarded("certificates", lambda: kit.certificates(home)),
        guarded("site policy", lambda: kit.site_policy(home)),
        guarded("private files", lambda: kit.private_files(home)),
        *holdings.sources(home),
        guarded("catalogue", lambda: holdings.catalogue(home)),
        guarded("planted cases", lambda: holdings.planted(home)),
        guarded("cache", lambda: holdings.cache(home)),
        guarded("index", lambda: holdings.index(home)),
        guarded("index process", lambda: holdings.index_process(home)),
    ]
