"""The body of /v1/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag, model_validator

from quire.api import limits
from quire.api.protocol.fields import ChoiceFields, LogprobCount, TokenIds, refuse
from quire.api.protocol.refusals import COMPLETION, Refusal


def _kind(prompt: Any) -> str:
    """Which of the four forms a prompt has, by its first item, so that one form's faults are told."""
    if not isinstance(prompt, list):
        return "text"
    if prompt and isinstance(prompt[0], str):
        return "texts"
    return "id_lists" if prompt and isinstance(prompt[0], list) else "ids"


Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[
        list[str],
        Field(min_length=1, max_length=limits.SEQUENCES, fail_fast=True),
        Tag("texts"),
    ]
    | Annotated[TokenIds, Field(min_length=1), Tag("ids")]
    | Annotated[
        list[Annotated[TokenIds, Field(min_length=1)]],
        Field(min_length=1, max_length=limits.SEQUENCES, fail_fast=True),
        Tag("id_lists"),
    ],
    Discriminator(_kind),
]


class CompletionRequest(ChoiceFields):
    """Complete one text or several; OpenAI's legacy completions with vLLM's further fields."""

    refused: ClassVar[Mapping[str, Refusal]] = COMPLETION

    prompt: Prompt
    """Text, token ids, or a list of either."""
    add_special_tokens: bool | None = None
    """Let the tokenizer add its own to text, such as the beginning of sequence; default: true."""
    echo: bool | None = None
    """Begin each choice with its prompt; with `logprobs` they cover the prompt too."""
    logprobs: LogprobCount | None = None
    """Also return the log-probabilities of each token and of the k most likely ones."""

    @model_validator(mode="after")
    def _check_length(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise refuse("must be at least 1 (0 scores a prompt, with echo=true)", "max_tokens")
        count = len(self.prompts) * (self.n or 1)
        if count > limits.SEQUENCES:
            raise refuse(
                f"together with prompt asks for {count} sequences; the most are {limits.SEQUENCES}",
                "n",
            )
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One prompt or many as a list."""
        if isinstance(self.prompt, list) and not isinstance(self.prompt[0], int):
            return self.prompt
        return [self.prompt]  # type: ignore[return-value]
