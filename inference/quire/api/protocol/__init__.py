"""Request bodies as pydantic models, one file for each endpoint. See `fields` for what they share."""

from quire.api.protocol.chat import ChatCompletionRequest
from quire.api.protocol.completion import CompletionRequest
from quire.api.protocol.pooling import EmbeddingRequest, RerankRequest, ScoreRequest
from quire.api.protocol.responses import ResponsesRequest
from quire.api.protocol.tokenize import DetokenizeRequest, TokenizeRequest

__all__ = [
    "ChatCompletionRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "EmbeddingRequest",
    "RerankRequest",
    "ResponsesRequest",
    "ScoreRequest",
    "TokenizeRequest",
]
