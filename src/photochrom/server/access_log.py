"""One line for every request: time, client, method and path, status, bytes sent, seconds."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AccessLog:
    """ASGI middleware that writes a line to stderr once a request is answered, or its client has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, sent = time.monotonic(), 0, 0

        async def count(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, count)
        finally:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            client = (scope.get("client") or ("-",))[0]
            # Quoted, because a client chose the path: a new line in it would forge another entry.
            asked = f"{scope['method']} {quote(scope['path'])}"
            seconds = time.monotonic() - begun
            print(
                f"{now} {client} {asked} {status} {sent} bytes {seconds:.3f} s", file=sys.stderr, flush=True
            )
