"""Command-line flags made from the fields of a dataclass, and a parser that suggests the nearest flag.

`EngineConfig` and `SamplingParams` are the only list of options there is: a new field is a new flag. This
module knows how a field's type is written on a command line, and nothing of what the options mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from quire.errors import suggest

_FACTORS = {
    "": 1,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse with whole flag names only, and a suggestion for a misspelt one."""

    def __init__(
        self, *, prog: str, usage: str, description: str, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} {usage}",  # argparse's own would list every flag twice
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse(self, arguments: Sequence[str], *, positionals: str = "") -> argparse.Namespace:
        """Parse `arguments`, in which flags and positional arguments may stand in any order.

        Args:
            positionals: name of the list that also takes what follows a `--`.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        # Before argparse: it would take the value of an unknown flag for a prompt.
        for argument in arguments[:end]:
            flag = argument.partition("=")[0]
            if re.fullmatch(r"--?[A-Za-z][\w-]*", flag) and flag not in self._option_string_actions:
                self.error(f"unknown flag {flag!r}{suggest(flag, self._option_string_actions)}")
        given = self.parse_intermixed_args(arguments[:end])
        if after := arguments[end + 1 :]:
            if not positionals:
                self.error(f"unrecognized arguments: {' '.join(after)}")
            getattr(given, positionals).extend(after)
        return given

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


@dataclass(frozen=True)
class Flags:
    """The fields of a dataclass as command-line flags.

    A field's metadata may hold `help`, `choices`, `aliases` (further names of its flag) and `spelling`
    (arguments for argparse in place of those that its type gives).

    Args:
        cls: the dataclass.
        title: heading of the flags in the help.
        leave_out: names of fields that get no flag.
        defaults: what the command sets where a flag is not given, in place of the field's default.
    """

    cls: type
    title: str
    leave_out: Collection[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def add_to(self, parser: Parser) -> None:
        """Give `parser` the flags; one that is not given leaves no trace in what it parses."""
        group = parser.add_argument_group(self.title)
        types = typing.get_type_hints(self.cls)
        texts = _argument_texts(self.cls)
        for option in self._fields():
            spelling = _spelling(types[option.name], option.metadata.get("choices"))
            text = option.metadata.get("help") or texts.get(option.name, "")
            if spelling.get("action") == "append":
                text += "; repeat the flag for more"
            default = self.defaults.get(option.name, option.default)
            if default is not None and default is not False:
                text += f" (default: {default})"
            group.add_argument(
                *("--" + name for name in _names(option)),
                dest=option.name,
                default=argparse.SUPPRESS,
                help=text.replace("%", "%%"),
                **{**spelling, **option.metadata.get("spelling", {})},
            )

    def read(self, given: argparse.Namespace) -> dict[str, Any]:
        """The fields that were given on the command line, and the command's defaults of others."""
        values = {f.name: getattr(given, f.name) for f in self._fields() if hasattr(given, f.name)}
        return {**self.defaults, **values}

    def _fields(self) -> list[dataclasses.Field[Any]]:
        return [f for f in dataclasses.fields(self.cls) if f.name not in self.leave_out]


def _names(option: dataclasses.Field[Any]) -> list[str]:
    return [name.replace("_", "-") for name in (option.name, *option.metadata.get("aliases", ()))]


def whole_number(text: str) -> int:
    """Read a whole number: `4096`, `4k` (4,000), `4K` (4,096), `1.5M`; suffixes k, m, g and t."""
    parts = re.fullmatch(r"([+-]?\d{1,18})(?:\.(\d{1,18}))?([kmgtKMGT]?)", text.replace("_", ""))
    if parts:
        whole, fraction, suffix = parts[1], parts[2] or "", parts[3]
        number, rest = divmod(int(whole + fraction) * _FACTORS[suffix], 10 ** len(fraction))
        if not rest:
            return int(number)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number such as 4096, 4k or 4K")


def token_ids(text: str) -> list[int]:
    """Read token ids with commas between them: `13,198`."""
    try:
        return [int(part) for part in text.strip("[] ").split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} are not token ids with commas between them, such as 13,198"
        ) from None


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object such as '{{\"a\": 1}}'")
    return value


def _spelling(hint: Any, choices: Sequence[str] | None) -> dict[str, Any]:
    """argparse's arguments for a field of type `hint`."""
    members = [member for member in (typing.get_args(hint) or (hint,)) if member is not type(None)]
    optional = type(None) in typing.get_args(hint)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) in (list, dict):  # get_args gave what is inside
        members = [hint]
    if list[str] in members:
        return {"action": "append", "metavar": "TEXT"}
    if list[int] in members:
        return {"type": token_ids, "metavar": "ID,ID"}
    origin = typing.get_origin(members[0]) or members[0]
    if issubclass(origin, Mapping):
        return {"type": json_object, "metavar": "JSON"}
    if choices:
        return {"metavar": "{" + ",".join(choices) + "}"}
    reader: Callable[[str], Any] = whole_number if origin is int else origin
    metavar = {int: "N", float: "X"}.get(origin, "TEXT")
    return {"type": _or_none(reader) if optional and origin is not str else reader,
            "metavar": metavar}  # fmt: skip


def _or_none(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text.lower() == "none" else reader(text)

    read.__name__ = getattr(reader, "__name__", "value")  # argparse names it in its errors
    return read


def _argument_texts(cls: type) -> dict[str, str]:
    """The texts under `Args:` in a class's docstring, by argument."""
    doc = inspect.getdoc(cls) or ""
    section = doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return {
        name: " ".join(text.split()).rstrip(".")
        for name, text in zip(*[iter(entries)] * 2, strict=True)
    }
