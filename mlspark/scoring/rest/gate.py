"""What every request passes first: who may ask, how long it took, and that the server is about to go."""

import hmac
import json
import time
from collections.abc import Callable, Collection
from typing import Any

from mlspark.scoring.rest.metrics import Metrics

Scope = dict[str, Any]
Message = dict[str, Any]

OPEN = frozenset({"/", "/page.js", "/health", "/ready"})
"""Paths that need no token: they tell nothing of the model but whether it is there."""


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: Any,
        *,
        metrics: Metrics,
        paths: Collection[str],
        is_draining: Callable[[], bool],
        token: str = "",
        hosts: Collection[str] = (),
    ) -> None:
        """Make it.

        Args:
            app: what answers those who pass.
            metrics: counts requests.
            paths: known ones, by which requests are counted.
            is_draining: whether connections are to be closed after their answer.
            token: those who ask have to send; empty: none.
            hosts: names by which the server may be called; empty: any. Where there is no token, this keeps out pages of the
                web whose name leads to this machine.
        """
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)
        self._is_draining, self._hosts = is_draining, frozenset(hosts)
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer a request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
                if self._is_draining() and not any(name == b"connection" for name, _ in headers):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            if problem := self._problem(scope):
                await _answer(sent, *problem)
            else:
                await self._app(scope, receive, sent)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - started)

    def _problem(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and message for a request that may not pass."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts and host.rpartition(":")[0].lower() not in self._hosts and host.lower() not in self._hosts:
            return 421, f"this server is called {' or '.join(sorted(self._hosts))}, not {host[:100]!r}"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            return 403, "pages of other sites may not ask here"
        if self._token and scope["path"] not in OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                return 401, "send the token: Authorization: Bearer TOKEN"
        return None


async def _answer(send: Any, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # The body of the request is not read.
    headers += [(b"connection", b"close")] + ([(b"www-authenticate", b"Bearer")] if status == 401 else [])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
