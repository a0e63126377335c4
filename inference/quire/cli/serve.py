"""`quire serve`: an OpenAI-compatible endpoint over one model.

It owns the command line; the server behind it is imported when everything on it is right.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quire.cli.config_file import with_config_file
from quire.cli.flags import Flags, Parser
from quire.config import EngineConfig
from quire.errors import MissingDependencyError
from quire.server.options import ServerOptions

if TYPE_CHECKING:
    from quire.cli import MakeLLM

ENGINE = Flags(EngineConfig, "engine", leave_out=("skip_tokenizer_init",))
SERVER = Flags(ServerOptions, "server")
EXAMPLES = """\
examples:
  quire serve
  quire serve Qwen/Qwen2.5-0.5B-Instruct --served-model-name qwen --max-model-len 2048
  quire serve --config server.yaml --port 9000

A configuration file holds flags without their dashes in front, `max-model-len: 2048`; flags on the command
line come before it. While it runs, GET / shows the load and a chat box.
"""


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire serve` with what follows it on the command line; ends with the server's exit code."""
    parser = _parser()
    given = parser.parse(with_config_file(parser, arguments))
    engine = ENGINE.read(given)
    if given.model_name is not None:
        if any(argument.partition("=")[0] == "--model" for argument in arguments):
            parser.error("the model is given twice: as an argument and by --model")
        engine["model"] = given.model_name  # before the configuration file's
    config = EngineConfig.from_options(**engine)
    options = ServerOptions(**SERVER.read(given))
    try:
        from quire.server.run import serve
    except ImportError as error:
        raise MissingDependencyError(
            f"quire serve needs packages that are not installed ({error.name}): "
            "pip install 'quire[server]'"
        ) from None
    sys.exit(serve(config, options))


def _parser() -> Parser:
    parser = Parser(
        prog="quire serve",
        usage="[FLAG ...] [MODEL]",
        description="Serve a model behind an OpenAI-compatible endpoint; none means the one that ships with "
        "quire.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "model_name", nargs="?", metavar="MODEL", help="folder or hub name of the model"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with flags")
    SERVER.add_to(parser)
    ENGINE.add_to(parser)
    return parser
