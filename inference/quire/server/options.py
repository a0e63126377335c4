"""What a server is asked to be: `ServerOptions`, the flags of `quire serve` beside the engine's.

Flag names are vLLM's where the meaning is. Nothing here imports a web framework.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.api.limits import BODY_BYTES, BODY_SECONDS
from quire.config import option
from quire.errors import ConfigError

LOG_FORMATS = ("text", "json")
KEY_VARIABLE = "QUIRE_API_KEY"


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Options of the endpoint.

    Raises:
        ConfigError: an option out of range, or a pair that does not go together.
    """

    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0 opens it to the network")
    port: int = option(8000, "port to listen at; 0 takes a free one")
    uds: str | None = option(None, "path of a Unix domain socket to listen at, in place of a port")
    api_key: list[str] | None = field(
        default=None,
        repr=False,
        metadata={
            "help": f"key that clients must send; others can see it in `ps`: prefer {KEY_VARIABLE} "
            "or --api-key-file"
        },
    )
    api_key_file: str | None = option(None, "file with one key a line")
    open_metrics: bool = option(False, "let /metrics be read without a key")
    ssl_certfile: str | None = option(None, "TLS certificate, a PEM file")
    ssl_keyfile: str | None = option(
        None, "key of the certificate, where its file does not hold it"
    )
    ssl_ca_certs: str | None = option(None, "clients must show a certificate that these sign")
    allowed_origins: list[str] | None = option(
        None, "web origin whose pages may call this server (CORS); * for all"
    )
    served_model_name: list[str] | None = option(
        None, "name of the model for clients; default: the one it was loaded by"
    )
    allow_unknown_fields: bool = option(
        False, "answer requests with unknown fields, and name these in a header"
    )
    trust_request_chat_template: bool = option(
        False, "let requests bring chat templates, which run in a sandbox"
    )
    default_chat_template_kwargs: Mapping[str, Any] | None = option(
        None, "arguments of the chat template where a request gives none"
    )
    show_cached_text: bool = option(
        False, "let cache_report quote cached prompts also where no keys tell callers apart"
    )
    max_request_bytes: int = option(BODY_BYTES, "longest body of a request")
    body_timeout: float = option(BODY_SECONDS, "seconds in which a body must have come")
    sse_keep_alive_interval: float = option(
        15.0, "seconds of silence in a stream after which a comment is sent"
    )
    shutdown_timeout: float = option(
        10.0, "seconds that running requests get to end after SIGTERM or Ctrl-C"
    )
    enable_log_requests: bool = option(True, "log a line for each request")
    log_interval: float = option(10.0, "seconds between lines about the load; 0: none")
    log_format: str = option("text", "of log lines", LOG_FORMATS)
    otlp_traces_endpoint: str | None = option(
        None, "where OpenTelemetry spans go, such as http://localhost:4318"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be between 0 and 65535; got {self.port}", param="port")
        for name in ("max_request_bytes", "body_timeout", "sse_keep_alive_interval"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"{name} must be above 0; got {getattr(self, name)!r}", param=name
                )
        for name in ("shutdown_timeout", "log_interval"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} must be 0 or more; got {getattr(self, name)!r}", param=name
                )
        if self.log_format not in LOG_FORMATS:
            raise ConfigError(
                f"log_format must be text or json; got {self.log_format!r}", param="log_format"
            )
        endpoint = self.otlp_traces_endpoint
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                f"otlp_traces_endpoint must be an address of OTLP over HTTP, such as "
                f"http://localhost:4318; got {endpoint!r}",
                param="otlp_traces_endpoint",
            )
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_ca_certs):
            raise ConfigError(
                "TLS needs a certificate: give ssl_certfile too", param="ssl_certfile"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.uds is not None or self.host in ("127.0.0.1", "localhost", "::1")

    def keys(self, environment: Mapping[str, str] = os.environ) -> list[str]:
        """All API keys: of the option, of the file and of QUIRE_API_KEY (with commas between several).

        Raises:
            ConfigError: the file cannot be read or holds no key, or a key cannot stand in a header.
        """
        keys = list(self.api_key or [])
        if self.api_key_file is not None:
            try:
                lines = Path(self.api_key_file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"api_key_file {self.api_key_file!r} cannot be read: {error}",
                    param="api_key_file",
                ) from None
            found = [line.strip() for line in lines if line.strip()]
            if not found:  # else a file that lost its content would open the server
                raise ConfigError(
                    f"api_key_file {self.api_key_file!r} holds no key", param="api_key_file"
                )
            keys += found
        keys += [key.strip() for key in environment.get(KEY_VARIABLE, "").split(",") if key.strip()]
        for key in keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise ConfigError(
                    "an API key must be printable ASCII without spaces", param="api_key"
                )
        return keys
