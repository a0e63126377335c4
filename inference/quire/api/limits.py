"""The bounds of the endpoint, in one table. They hold in-process and over HTTP alike.

Over a bound: 400 that names the field and the bound; 413 for the body, 431 for the head, 429 for the
queue. What depends on the model (context length, number of logprobs) is the engine's to check.
"""

from __future__ import annotations

MIB = 1 << 20

# What arrives (enforced by the server)
BODY_BYTES = 32 * MIB
HEAD_BYTES = 64 << 10
BODY_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 5.0

# Any JSON
JSON_DEPTH = 64
OBJECT_KEYS = 4096
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
TOKEN_ID_MAX = 2**31 - 1

# Requests
MODEL_NAME_CHARACTERS = 256
REQUEST_ID_CHARACTERS = 128
CACHE_SALT_CHARACTERS = 128
SESSION_ID_CHARACTERS = 512
USER_CHARACTERS = 512
METADATA_ENTRIES = 16
METADATA_VALUE_CHARACTERS = 512
TIMEOUT_SECONDS = 86_400.0
SEQUENCES = 128  # prompts times n
POOLING_TEXTS = 2048  # that one request may have embedded or scored
MESSAGES = 4096
CONTENT_PARTS = 1024
TOOLS = 128
TOOL_CALLS = 128
STOP_STRINGS = 4
STOP_CHARACTERS = 256
LOGIT_BIAS_ENTRIES = 1024
BAD_WORDS = 128
BAD_WORD_CHARACTERS = 256
STOP_TOKEN_IDS = 128
ALLOWED_TOKEN_IDS = 1024
TEMPLATE_KWARGS = 32
TEMPLATE_CHARACTERS = 64 << 10
TOKENIZE_CHARACTERS = 1_000_000

# Answers
ERROR_CHARACTERS = 4000  # of a message: at most 16 kB once it is UTF-8
VALIDATION_ERRORS = 10
STORED_RESPONSES = 1024
STORED_RESPONSE_BYTES = 64 * MIB
