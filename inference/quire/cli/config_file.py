"""`--config FILE`: flags from a YAML file, as if they stood on the command line before the others.

So a file's values are read, checked and refused by the same parser as flags. It knows no flag by name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quire.cli.flags import Parser
from quire.errors import ConfigError, MissingDependencyError, suggest

FLAG = "--config"


def with_config_file(parser: Parser, arguments: Sequence[str]) -> list[str]:
    """`arguments` with what the file of `--config` says in front of them.

    A flag that is given on the command line replaces the file's, repeated ones too.

    Raises:
        ConfigError: the file cannot be read, is no mapping, or has a key that is no flag.
    """
    only = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only.add_argument(FLAG)
    path = only.parse_known_args(list(arguments))[0].config
    if path is None:
        return list(arguments)
    flags = {
        spelling[2:]: action
        for spelling, action in parser._option_string_actions.items()
        if spelling == action.option_strings[0] and spelling not in ("-h", FLAG)
    }
    given = {argument.partition("=")[0] for argument in arguments}
    from_file = []
    for key, value in _read(path).items():
        name = str(key).replace("_", "-")
        action = flags.get(name)
        if action is None:
            raise ConfigError(f"{path}: unknown key {key!r}{suggest(name, flags)}", param=str(key))
        if not given.intersection(action.option_strings):
            from_file += _arguments(path, name, value, action)
    return [*from_file, *arguments]


def _read(path: str) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError(
            "--config needs a YAML reader: pip install 'quire[server]'"
        ) from None
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML: {text}", param="config") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} must hold `flag: value` lines, such as `port: 8000`", param="config"
        )
    return content


def _arguments(path: str, name: str, value: Any, action: argparse.Action) -> list[str]:
    """One entry of the file as command-line arguments; `null` is as if it were not there."""
    if value is None:
        return []
    if isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ConfigError(f"{path}: {name} must be true or false; got {value!r}", param=name)
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}={_text(item)}" for item in value]
    return [f"--{name}={_text(value)}"]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
