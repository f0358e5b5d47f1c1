"""TLS for talking to an archive, and for being called by one; private keys only from private files."""

import ssl
from pathlib import Path

from silo_app.config import SiloHome, TlsSettings
from silo_app.durable import read_private_text
from silo_app.errors import ConfigInvalid

__all__ = ["calling_context", "certificate", "listening_context", "why_refused"]


def calling_context(home: SiloHome, tls: TlsSettings) -> ssl.SSLContext:
    """Return what we call an archive with: its certificate is checked, ours is shown."""
    context = _loaded(ssl.PROTOCOL_TLS_CLIENT, home, tls)
    context.check_hostname = True
    return context


def listening_context(home: SiloHome, tls: TlsSettings) -> ssl.SSLContext:
    """Return what we are called with: whoever calls must show a certificate of the authority."""
    context = _loaded(ssl.PROTOCOL_TLS_SERVER, home, tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def certificate(home: SiloHome, tls: TlsSettings) -> tuple[Path, Path] | None:
    """Return the files of our certificate and key, or None. Raises `ConfigInvalid` if others may read the key."""
    if tls.certificate_file is None or tls.key_file is None:
        return None
    key = home.resolve(tls.key_file)
    read_private_text(key)
    return home.resolve(tls.certificate_file), key


def why_refused(error: BaseException) -> str:
    """Return in OpenSSL's words what an error of TLS is about, however deep the libraries between have wrapped it."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    reason = ""
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ssl.SSLCertVerificationError):
            return one.verify_message
        if isinstance(one, ssl.SSLError):
            reason = reason or str(one.reason or "").replace("_", " ").lower()
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [each for each in inner if isinstance(each, BaseException)]
    return reason or "no reason is given"


def _loaded(protocol: int, home: SiloHome, tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    ours = certificate(home, tls)
    ca = home.resolve(tls.ca_file)
    try:
        context.load_verify_locations(ca)
        if ours:
            context.load_cert_chain(*ours)
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(
            f"a certificate or key cannot be used ({type(error).__name__})",
            where=str(ours[0] if ours else ca),
            remedy="Give PEM files; the certificate and the key must belong together.",
        ) from None
    return context
