"""The page at /: one file, sent as it is. It holds no secret and fetches nothing from elsewhere."""

from __future__ import annotations

from importlib import resources

from starlette.types import Send

from quire.server.answers import Headers, send_body

HEADERS: Headers = [
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        b"img-src data:; frame-ancestors 'none'",
    ),
]


async def send_page(send: Send, status: int = 200, headers: Headers | None = None) -> None:
    """Answer with the page; with status 401 it asks for the key."""
    body = resources.files("quire.server").joinpath("page.html").read_bytes()
    await send_body(send, status, body, b"text/html; charset=utf-8", [*HEADERS, *(headers or [])])
