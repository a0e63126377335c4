"""Where chat templates run: a Jinja sandbox with a deadline and a bound on what is written.

Templates are code from a model's repository, or from a request where an operator allows that. They may
compute on plain data and do nothing else, for `SECONDS` at most. This module knows no conversations; there
is no other Jinja environment in quire.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, ext, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from quire.errors import InvalidPromptError, PromptTooLongError

SECONDS = 5.0  # for one conversation; real ones take milliseconds
MAX_BITS = 1024  # of a whole number


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles templates as transformers does, and runs them within bounds.

    Args:
        seconds: that one `run` may take.
        clock: to measure them.
    """

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(
        self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, ext.loopcontrols]
        )
        self._seconds = seconds
        self._clock = clock
        self._bounds = threading.local()  # of the run that this thread is in
        self.filters["tojson"] = _to_json
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=lambda format: datetime.now().strftime(format),
            dict=lambda *pairs, **items: dict(*pairs, **items),
            namespace=_Namespace,
        )
        del self.globals["lipsum"]

    def run(self, template: Template, variables: Mapping[str, Any], max_characters: int) -> str:
        """What the template writes.

        Raises:
            InvalidPromptError: it takes too long.
            PromptTooLongError: it makes a text of more than `max_characters`.
            Exception: whatever else goes wrong in it.
        """
        self._bounds.deadline = self._clock() + self._seconds
        self._bounds.characters = max_characters
        pieces, length = [], 0
        for piece in template.generate(variables):
            pieces.append(piece)
            length += len(piece)
            self._check_size(length)
        return "".join(pieces)

    # ------------------------------------------------------------------ called by compiled templates

    def check_time(self) -> None:
        """Called in every turn of a loop and every call of a macro."""
        if self._clock() > self._bounds.deadline:
            raise InvalidPromptError(
                f"the chat template takes more than {self._seconds:g} s for these messages",
                param="messages",
            )

    def concatenate(self, *values: object) -> str:
        """The operator `~`."""
        texts = [str(value) for value in values]
        self._check_size(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length(), right.bit_length()
            if (operator == "**" and bits[0] * abs(right) > MAX_BITS) or sum(bits) > MAX_BITS:
                raise SecurityError(f"numbers in a chat template have at most {MAX_BITS} bits")
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if hasattr(sequence, "__len__") and isinstance(times, int):
                    self._check_size(len(sequence) * times)
        elif hasattr(left, "__len__") and hasattr(right, "__len__"):
            self._check_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def _check_size(self, length: int) -> None:
        if length > self._bounds.characters:
            raise PromptTooLongError(
                f"the chat template writes more than {self._bounds.characters} characters for these "
                "messages, and no prompt may be so long; reduce their length",
                param="messages",
            )

    # ------------------------------------------------------------------ compiling

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            assert isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock))
            check = nodes.Call(nodes.EnvironmentAttribute("check_time"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(check).set_lineno(node.lineno))
        checked = _CheckedConcatenation().visit(tree)
        assert isinstance(checked, nodes.Template), "only what is in it was changed"
        return checked.set_environment(self)  # type: ignore[return-value]


class _CheckedConcatenation(NodeTransformer):
    """Jinja joins the operands of `~` in compiled code; let the sandbox do it."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        join = nodes.EnvironmentAttribute("concatenate")
        return nodes.Call(join, node.nodes, [], None, None).set_lineno(node.lineno)


class _GenerationTag(ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it is only passed over."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own name

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Namespace(Namespace):
    """Jinja's `namespace`, without a way to names that Python gives a meaning."""

    def __init__(*args: Any, **items: Any) -> None:  # `self` may be an item's name
        self, *pairs = args
        Namespace.__init__(self)
        for name, value in dict(*pairs, **items).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace of a chat template cannot hold {name!r}")
        Namespace.__setitem__(self, name, value)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' templates expect it: Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
