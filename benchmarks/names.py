"""One sentence for a name that an option does not know."""

from collections.abc import Iterable


def unknown(flag: str, given: Iterable[str], known: list[str]) -> str | None:
    """Name the first that is not known, and what is; None if all are."""
    for name in given:
        if name not in known:
            return f"{flag} {name!r} is unknown; choose from {', '.join(known)}"
    return None
