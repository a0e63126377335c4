"""Fields that clients know and quire does not serve, each with the reason it is refused by.

They would change the answer, so ignoring them would give a client silently different behaviour. A value
that asks for nothing ("neutral") is let pass, and so is null. A feature that is added takes its line out
of here and puts a field into the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """Why a field is refused.

    Args:
        reason: what is missing and what to do instead; follows "`field` is not supported: ".
        neutral: values that ask for what happens anyway.
    """

    reason: str
    neutral: tuple[Any, ...] = ()

    def allows(self, value: object) -> bool:
        """Whether the value asks for nothing; True is not 1 here."""
        return value is None or any(
            type(value) is type(one) and value == one for one in self.neutral
        )


_OPERATOR = Refusal("it belongs to the operator of the server, not to a request")
_HOSTED = Refusal("it is a service of OpenAI's")
_BEAMS = "beam search is not served here; LLM.beam_search has it in-process"
_TIERS = Refusal("there is one tier of service", ("auto", "default"))

COMMON: Mapping[str, Refusal] = {
    "best_of": Refusal("ask for n choices with logprobs, and keep the best", (1,)),
    "use_beam_search": Refusal(_BEAMS, (False,)),
    "length_penalty": Refusal(_BEAMS, (1.0, 1)),
    "early_stopping": Refusal(_BEAMS, (False,)),
    "guided_json": Refusal('write structured_outputs: {"json": ...}'),
    "guided_regex": Refusal('write structured_outputs: {"regex": ...}'),
    "guided_choice": Refusal('write structured_outputs: {"choice": ...}'),
    "guided_grammar": Refusal('write structured_outputs: {"grammar": ...}'),
    "guided_decoding_backend": Refusal("there is one backend"),
    "guided_whitespace_pattern": Refusal(
        'write structured_outputs: {"json": ..., "whitespace_pattern": ...}'
    ),
    "structural_tag": Refusal('write structured_outputs: {"structural_tag": ...}'),
    "truncate_prompt_tokens": Refusal("cut the prompt before the call"),
    "prompt_embeds": Refusal("prompts are text or token ids"),
    "logits_processors": Refusal("use logit_bias, allowed_token_ids or bad_words"),
    "repetition_detection": Refusal("use max_tokens, frequency_penalty or repetition_penalty"),
    "watermarking": Refusal("answers are not marked"),
    "service_tier": _TIERS,
    "moderation": _HOSTED,
    "prompt_cache_options": _HOSTED,
    "prompt_cache_retention": Refusal(
        "prefixes are cached in memory, as long as there is room", ("in_memory",)
    ),
    "kv_transfer_params": _OPERATOR,
    "mm_processor_kwargs": _OPERATOR,
    "media_io_kwargs": _OPERATOR,
    "vllm_xargs": _OPERATOR,
}

COMPLETION: Mapping[str, Refusal] = {
    **COMMON,
    "suffix": Refusal(
        "the models served here complete a text at its end; write the prompt in the form that a "
        "fill-in-the-middle model was trained on",
        ("",),
    ),
    "tools": Refusal("tools belong to /v1/chat/completions", ([],)),
    "response_format": Refusal("write structured_outputs", ({"type": "text"},)),
    "messages": Refusal("messages belong to /v1/chat/completions"),
}

CHAT: Mapping[str, Refusal] = {
    **COMMON,
    "functions": Refusal("write tools"),
    "function_call": Refusal("write tool_choice", ("none", "auto")),
    "modalities": Refusal("answers are text", (["text"],)),
    "audio": Refusal("answers are text"),
    "verbosity": Refusal("say in a message how long the answer should be", ("medium",)),
    "prediction": Refusal("predicted outputs are not used"),
    "web_search_options": _HOSTED,
    "documents": Refusal("pass them as chat_template_kwargs, if the model's template has them"),
    "add_special_tokens": Refusal("the model's chat template writes them", (False,)),
    "echo": Refusal("chat answers begin after the prompt", (False,)),
    "store": Refusal("chat completions are not kept; /v1/responses keeps its answers", (False,)),
    "prompt": Refusal("a prompt belongs to /v1/completions; write messages"),
}

RESPONSES: Mapping[str, Refusal] = {
    **COMMON,
    "max_tool_calls": Refusal("it counts calls of hosted tools; functions are called by you"),
    "response_format": Refusal("write text.format"),
    "truncation": Refusal("shorten the input before the call", ("disabled",)),
    "conversation": Refusal("name the answer before with previous_response_id"),
    "prompt": Refusal("prompts are not kept; write input and instructions"),
    "context_management": _HOSTED,
    "messages": Refusal("a response takes its messages in the field input"),
    "max_tokens": Refusal("write max_output_tokens"),
    "n": Refusal("a response is one; /v1/chat/completions has n", (1,)),
}

_POOLING: Mapping[str, Refusal] = {
    "messages": Refusal("write texts; a chat template is not applied"),
    "add_special_tokens": Refusal("the tokenizer writes them around every text", (True,)),
    "stream": Refusal("an answer of vectors or scores comes whole", (False,)),
    "mm_processor_kwargs": _OPERATOR,
    "truncation_side": Refusal("texts are cut at their end", ("right",)),
    "softmax": Refusal("write use_activation"),
    "activation": Refusal("write use_activation"),
    "normalize": Refusal("write use_activation"),
}

EMBEDDING: Mapping[str, Refusal] = {
    **_POOLING,
    "input_type": Refusal("write prompt_name"),
    "texts": Refusal("write input"),
    "embed_dtype": Refusal("numbers are float32", ("float32",)),
    "endianness": Refusal("the least significant byte is first", ("native", "little")),
}

RERANK: Mapping[str, Refusal] = {
    **_POOLING,
    "max_tokens_per_doc": Refusal("write truncate_prompt_tokens"),
    "max_chunks_per_doc": Refusal("write truncate_prompt_tokens"),
    "rank_fields": Refusal("documents are texts"),
}

SCORE: Mapping[str, Refusal] = {
    **_POOLING,
    "queries": Refusal("write text_1"),
    "documents": Refusal("write text_2"),
    "data_1": Refusal("write text_1"),
    "data_2": Refusal("write text_2"),
}

# Parts of a message's content other than text.
CONTENT_PARTS: Mapping[str, str] = {
    "image_url": "this release runs text models only",
    "input_image": "this release runs text models only",
    "input_audio": "this release runs text models only",
    "video_url": "this release runs text models only",
    "audio_url": "this release runs text models only",
    "file": "put the file's text into the message",
    "input_file": "put the file's text into the message",
}

# Tools other than functions.
TOOLS: Mapping[str, str] = {
    kind: "it runs at OpenAI's; give a function, and call it yourself"
    for kind in (
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "image_generation",
        "mcp",
        "local_shell",
    )
} | {"custom": "give a function with one parameter that is a text"}

# Items of a response's input other than messages.
INPUT_ITEMS: Mapping[str, str] = {
    "custom_tool_call": "give a function with one parameter that is a text",
    "custom_tool_call_output": "give a function with one parameter that is a text",
    "item_reference": "write the item itself, or name the answer with previous_response_id",
}
