"""Numbers as people read them."""

__all__ = ["amount", "duration", "fraction", "share", "size"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_NOT_KNOWN = "not known"


def amount(value: int | None) -> str:
    """Return 12345 as "12,345"."""
    return _NOT_KNOWN if value is None else f"{value:,}"


def size(count: float | None) -> str:
    """Return bytes in decimal units: 14_130_000 is "14.1 MB"."""
    if count is None:
        return _NOT_KNOWN
    power = 0
    while count >= 999.95 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {_UNITS[power]}" if power == 0 else f"{count:.1f} {_UNITS[power]}"


def duration(seconds: float | None) -> str:
    """Return seconds as "0.4 s", "12 s", "3 min 5 s" or "1 h 2 min"."""
    if seconds is None:
        return _NOT_KNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def fraction(value: float | None) -> str:
    """Return an AUC or a precision with three digits."""
    return _NOT_KNOWN if value is None else f"{value:.3f}"


def share(part: float, whole: float) -> str:
    """Return "12 %", or "0 %" of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"
