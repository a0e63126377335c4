"""Formats by the names that options give them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from quire.errors import ConfigError, suggest


class Named(Protocol):
    """What has a name, and others that other programs give it."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> Iterable[str]: ...


F = TypeVar("F", bound=Named)


def by_name(formats: Sequence[F], name: str, kind: str, param: str) -> F:
    """The format that is called `name`.

    Args:
        formats: to choose from.
        name: or an alias.
        kind: what the formats are, for the message.
        param: the option that gave the name.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    for one in formats:
        if name in (one.name, *one.aliases):
            return one
    names = [name for one in formats for name in (one.name, *one.aliases)]
    raise ConfigError(
        f"there is no {kind} {name!r}{suggest(name, names)}; known are "
        f"{', '.join(one.name for one in formats)}",
        param=param,
    )
