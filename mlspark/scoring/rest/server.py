"""A server that ends when it is asked to, and not before its requests are answered."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket

import uvicorn

from mlspark.errors import ConfigError
from mlspark.scoring.rest.app import Service
from mlspark.scoring.rest.gate import Gate
from mlspark.scoring.rest.limits import Limits
from mlspark.scoring.rest.metrics import Metrics

logger = logging.getLogger(__name__)

TOKEN = "MLSPARK_SERVE_TOKEN"  # noqa: S105
"""Environment variable that holds the token."""
_LEAST_TOKEN = 16
"""Least characters of a token."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
_KEEP_ALIVE_SECONDS = 60
_MOST_CONNECTIONS = 1000
_DRAIN_SECONDS = 5.0
"""How long open connections are waited for, whose sender may be about to ask, when the server ends."""


def token_for(host: str) -> str:
    """Return the token of the environment; empty where there is none, which the loopback alone may do without.

    Raises:
        ConfigError: the address can be reached by others and there is no token, or it is short.
    """
    token = os.environ.get(TOKEN, "")
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"--host {host}: others may reach this address, so those who ask need a token: set {TOKEN} to at least "
            f"{_LEAST_TOKEN} characters (openssl rand -hex 32), or leave --host out to listen on this machine alone"
        )
    if token and (len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError(
            f"{TOKEN}: a token has at least {_LEAST_TOKEN} printable ASCII characters without spaces; make one with "
            f"openssl rand -hex 32"
        )
    return token


def _is_loopback(host: str) -> bool:
    """Return whether an address, or all addresses of a name, can be reached from this machine alone."""
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise ConfigError(f"--host {host}: is no address of this machine ({error.strerror})") from None
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # By name, or asyncio takes the connections for others than TCP and leaves Nagle's algorithm on: 40 ms an answer.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(1024)
        except OSError:
            listening.close()
            raise
        return listening
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); choose another"
        ) from None


def address(listening: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, listening: socket.socket, *, limits: Limits, metrics: Metrics, token: str) -> None:
    """Answer requests until SIGTERM or SIGINT; those that came before are answered, then this returns."""
    gate = Gate(
        service.app(),
        metrics=metrics,
        paths=service.paths,
        is_draining=lambda: service.is_draining,
        token=token,
        hosts=() if token else _LOOPBACK_NAMES,
    )
    config = uvicorn.Config(
        gate,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises it once more when all is done
    _Server(config, service).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what comes on the open ones and close each after it, then end."""
        self._service.is_draining = True
        for server in self.servers:
            server.close()
        logger.info("no new connections; waiting for those that are open")
        # At once, a request that is on its way on an idle connection would find it closed.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DRAIN_SECONDS
        while self.server_state.connections and loop.time() < deadline and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
