"""How far a long loop on the host is, for whoever watches a terminal."""

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def show_progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Yield the items beside a bar on stderr, if it is a terminal and rich is here."""
    try:
        from rich.console import Console
        from rich.progress import track
    except ModuleNotFoundError:
        return items
    console = Console(stderr=True)
    return track(
        items,
        description=description,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
