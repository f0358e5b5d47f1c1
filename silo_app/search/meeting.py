"""Knowing the silos' keys before the first question: each silo's voucher for them comes by way of gateway and broker.

Nobody has to trust those for it: a voucher is signed by its silo's certificate. A silo whose process was started since, or
that nobody has told of, refuses the first question, and that refusal brings its keys (`envelope.open_reply`).
"""

import logging
from collections.abc import Mapping

from silo_app.errors import ProtocolError
from silo_app.identity import Identity

__all__ = ["VOUCHER_ASKED", "meet"]

_log = logging.getLogger(__name__)

VOUCHER_ASKED = b"siloscope voucher 1\0"
"""The frame to which an index process replies with its session's voucher; only the gateway itself and the silo's own account
ask it."""


def meet(identity: Identity, vouchers: Mapping[str, bytes]) -> None:
    """Remember the keys of each silo whose voucher is its own; of others, nothing."""
    for silo, voucher in vouchers.items():
        try:
            vouched = identity.trust.vouched(voucher)
        except ProtocolError as error:
            _log.warning("the voucher in the name of %s is not used: %s", silo, error.problem)
            continue
        if vouched.who.name == silo and vouched.who.is_silo:
            identity.peers[silo] = vouched
