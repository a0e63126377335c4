"""OpenAI's clients over an engine in this process, and one face for these and for endpoints.

connection = quire.connect("Qwen/Qwen2.5-0.5B-Instruct")                   # or base_url="http://...:8000/v1"
connection.sync.chat.completions.create(model=connection.model, messages=[...], stream=True)
"""

from quire.api.client.client import AsyncClient, Client
from quire.api.client.connection import KEY_VARIABLE, URL_VARIABLE, Connection, connect
from quire.api.client.official import async_openai_client, openai_client

__all__ = [
    "KEY_VARIABLE",
    "URL_VARIABLE",
    "AsyncClient",
    "Client",
    "Connection",
    "async_openai_client",
    "connect",
    "openai_client",
]
