"""The bodies of /v1/embeddings, /v1/rerank and /v1/score: OpenAI's and Cohere's shapes with vLLM's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from quire.api import limits
from quire.api.protocol.fields import Body, Int64, TokenIds
from quire.api.protocol.refusals import EMBEDDING, RERANK, SCORE, Refusal

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=limits.POOLING_TEXTS, fail_fast=True)]


class PoolingFields(Body):
    """Fields of every request for vectors or scores: who asks, and what is made of long texts."""

    model: Annotated[str, Field(max_length=limits.MODEL_NAME_CHARACTERS)] | None = None
    """A name that the endpoint serves; left out: the first of them."""
    user: Annotated[str, Field(max_length=limits.USER_CHARACTERS)] | None = None
    """A label of the caller's; of no effect."""
    timeout: Annotated[float, Field(gt=0, le=limits.TIMEOUT_SECONDS)] | None = None
    """Seconds from arrival; then the request ends with an error."""
    priority: Int64 | None = None
    """Lower runs earlier, where the server schedules by priority."""
    cache_salt: (
        Annotated[str, Field(min_length=1, max_length=limits.CACHE_SALT_CHARACTERS)] | None
    ) = None
    """Cached prefixes are shared only between requests of the same salt (and API key)."""
    request_id: (
        Annotated[str, Field(max_length=limits.REQUEST_ID_CHARACTERS, pattern=r"^[\x21-\x7e]+$")]
        | None
    ) = None
    """A label for the answer's id, unless the header X-Request-Id has one."""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=limits.TOKEN_ID_MAX)] | None = None
    """Cut longer texts to so many tokens instead of refusing them; -1: to what the model takes."""
    use_activation: bool | None = None
    """Embeddings of unit length, scores through the model's activation; default: as the model has it."""


def _kind(value: Any) -> str:
    """Which of the four forms an input has, by its first item, so that one form's faults are told."""
    if not isinstance(value, list):
        return "text"
    if value and isinstance(value[0], str):
        return "texts"
    return "id_lists" if value and isinstance(value[0], list) else "ids"


Input = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[TokenIds, Field(min_length=1), Tag("ids")]
    | Annotated[
        list[Annotated[TokenIds, Field(min_length=1)]],
        Field(min_length=1, max_length=limits.POOLING_TEXTS, fail_fast=True),
        Tag("id_lists"),
    ],
    Discriminator(_kind),
]


class EmbeddingRequest(PoolingFields):
    """Make vectors of one text or several."""

    refused: ClassVar[Mapping[str, Refusal]] = EMBEDDING

    input: Input
    """Text, token ids, or a list of either."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64 is that of the vector's float32 numbers, least significant byte first."""
    dimensions: Annotated[int, Field(ge=1, le=limits.TOKEN_ID_MAX)] | None = None
    """Keep only the first so many numbers."""
    prompt_name: Annotated[str, Field(max_length=limits.MODEL_NAME_CHARACTERS)] | None = None
    """Which of the model's prompts goes in front of each text; default: the one that its files name."""
    prompt: Annotated[str, Field(max_length=limits.TEMPLATE_CHARACTERS)] | None = None
    """An instruction of your own in its place."""


class DocumentText(Body):
    """A document as an object."""

    text: Text


class RerankRequest(PoolingFields):
    """Order documents by how well they answer a query."""

    refused: ClassVar[Mapping[str, Refusal]] = RERANK

    query: Text
    documents: Annotated[
        list[Text | DocumentText],
        Field(min_length=1, max_length=limits.POOLING_TEXTS, fail_fast=True),
    ]
    top_n: Annotated[int, Field(ge=0, le=limits.TOKEN_ID_MAX)] | None = None
    """How many documents to return; default, and 0: all."""
    return_documents: bool | None = None
    """Whether results have the documents' texts; default: true."""

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class ScoreRequest(PoolingFields):
    """Score pairs of texts: one with each of many, or two lists one by one."""

    refused: ClassVar[Mapping[str, Refusal]] = SCORE

    text_1: Text | Texts
    """One query, or as many as there are documents."""
    text_2: Text | Texts
    """One document or several."""
