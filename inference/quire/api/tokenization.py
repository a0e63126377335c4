"""/tokenize and /detokenize: text to ids and back, as the model sees them."""

from __future__ import annotations

from typing import Any

from quire.api.backend import Backend
from quire.api.calls import Call, Reply
from quire.api.protocol.tokenize import DetokenizeRequest, TokenizeRequest
from quire.errors import InvalidPromptError, RequestError
from quire.tokenizer import Tokenizer


async def tokenize(backend: Backend, request: TokenizeRequest, call: Call) -> Reply:
    """Token ids of a text, or of a conversation as its prompt.

    Raises:
        RequestError: no such model, no tokenizer, or messages that make no prompt.
    """
    backend.model_name(request.model)
    tokenizer = _tokenizer(backend)
    if request.messages is not None:
        options = backend.template_arguments(request)
        messages = [message.for_template() for message in request.messages]
        chat = await backend.do(
            lambda: backend.prepare_chat(messages, None, options, "messages"),
            sum(message.size for message in request.messages),
        )
        token_ids = chat.prompt.token_ids
    else:
        text = request.prompt or ""
        special = request.add_special_tokens is not False
        token_ids = await backend.do(
            lambda: tokenizer.encode(text, add_special_tokens=special), len(text)
        )
    body: dict[str, Any] = {
        "count": len(token_ids),
        "max_model_len": backend.engine.max_model_len,
        "tokens": token_ids,
        "token_strs": None,
    }
    if request.return_token_strs:
        body["token_strs"] = await backend.do(
            lambda: [backend.token_names(one).text for one in token_ids], len(token_ids)
        )
    return Reply(body)


async def detokenize(backend: Backend, request: DetokenizeRequest, call: Call) -> Reply:
    """The text of token ids, special tokens included.

    Raises:
        RequestError: no such model, no tokenizer, or an id outside the vocabulary.
    """
    backend.model_name(request.model)
    tokenizer = _tokenizer(backend)
    for position, token_id in enumerate(request.tokens):
        if token_id >= backend.engine.vocab_size:
            raise InvalidPromptError(
                f"tokens[{position}] is {token_id}, which is out of the vocabulary: it ends at "
                f"{backend.engine.vocab_size - 1}",
                param=f"tokens[{position}]",
            )
    text = await backend.do(
        lambda: tokenizer.decode(request.tokens, skip_special_tokens=False), len(request.tokens)
    )
    return Reply({"prompt": text})


def _tokenizer(backend: Backend) -> Tokenizer:
    if backend.engine.tokenizer is None:
        raise RequestError("there is no tokenizer: the engine has skip_tokenizer_init=True")
    return backend.engine.tokenizer
