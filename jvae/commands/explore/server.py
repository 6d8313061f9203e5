"""Serves the page: to this machine unless told otherwise, and nothing but the page.

Gradio has addresses that this page has no use for: uploads, proxies, editing. Only what
the page asks for is answered here.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jvae.commands.explore.page import CSS
from jvae.errors import ConfigError, StoppedError, require

NAMES = ["127.0.0.1", "localhost"]
"""Of this machine, as a browser on it calls it."""
ADDRESSES = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/(static|assets|svelte)/[\w./@+-]+"
    r"|/gradio_api/(startup-events|run/predict|heartbeat/\w+|file=/.+)"
)
"""The requests that the page makes; 'file=' serves files that the page has written.

'file=' must be followed by a local path: Gradio would download a URL.
"""
MAX_BODY = 2**20
"""Bytes of a request; those of the page have some thousands."""


class OnlyThePage:
    """Answers requests for `ADDRESSES`, and says 404 or 413 to all others.

    Args:
      app: the application behind it (https://asgi.readthedocs.io).
    """

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: Any, receive: Callable, send: Callable) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return
        status, body = _refusal(scope), b""
        if not status and scope["method"] == "POST":
            body = await _read(receive)
            status = 0 if _is_plain(body) else 400
            receive = _Replay(body, receive)
        if status:
            await send({"type": "http.response.start", "status": status})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, send)


def _refusal(scope: Any) -> int:
    """Returns the status that a request is refused with, 0 if it is not."""
    if not ADDRESSES.fullmatch(scope["path"]):
        return 404
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:  # the length of the body is unknown
        return 411
    size = headers.get(b"content-length", b"0" if scope["method"] != "POST" else b"")
    if not size.isdigit():
        return 411
    return 413 if int(size) > MAX_BODY else 0


async def _read(receive: Callable) -> bytes:
    """Returns the body of a request; `_refusal` has checked its length."""
    body, is_more = b"", True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    return body


def _is_plain(body: bytes) -> bool:
    """Returns whether all inputs of a request are numbers or strings.

    The page sends no others. Gradio would read the file, or download the URL, that an
    input object names.
    """
    try:
        request = json.loads(body, parse_constant=_refuse_constant)
        values, function = request["data"], request["fn_index"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    plain = str | int | float | None
    is_function = type(function) is int and function >= 0
    are_plain = isinstance(values, list) and all(isinstance(v, plain) for v in values)
    return is_function and are_plain


def _refuse_constant(name: str) -> None:
    """Raises ValueError for NaN and Infinity, which JSON does not have."""
    raise ValueError(name)


class _Replay:
    """An ASGI `receive` that returns a body already read, then further messages."""

    def __init__(self, body: bytes, receive: Callable):
        self.messages = [{"type": "http.request", "body": body}]
        self.receive = receive

    async def __call__(self) -> Any:
        return self.messages.pop() if self.messages else await self.receive()


def application(page: Any, is_local: bool) -> Any:
    """Returns the web application of a page.

    Args:
      page: from `jvae.commands.explore.page.build`.
      is_local: whether requests that call this machine by another name than `NAMES`
        are refused: a page elsewhere could have led a browser here.
    """
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        show_error=False,
        theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
        css=CSS,
    )
    if is_local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)
    app.add_middleware(OnlyThePage)
    return app


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address; port 0 takes a free one.

    Raises:
      ConfigError: the address is taken, or not this machine's.
    """
    require(bool(host), "--host", "be an address, such as 0.0.0.0 for all", host)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"cannot listen at {host}:{port}: {reason}",
            fix="Give another --port, or --port=0 for a free one.",
        ) from error


def serve(app: Any, listener: socket.socket) -> None:
    """Answers requests until Ctrl-C or SIGTERM.

    Args:
      app: from `application`.
      listener: from `bound`.
    """
    # What the page's functions refuse is 500, and Gradio prints why.
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    signal.signal(signal.SIGTERM, _stop)  # uvicorn raises the signal again at its end
    uvicorn.Server(config).run(sockets=[listener])


def _stop(number: int, _: object) -> None:
    raise StoppedError("stopped by SIGTERM", exit_code=128 + number)
