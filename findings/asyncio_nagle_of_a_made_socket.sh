#!/usr/bin/env bash
# Whether asyncio switches Nagle's algorithm off depends on how the listening socket was made.
#
# Packages: uvicorn 0.54.0 (which hands its socket to asyncio), Python 3.11 to 3.13.
# Expected: asyncio sets TCP_NODELAY on every TCP connection that it accepts, as its documentation says.
# Seen:     it does so where the socket's protocol is IPPROTO_TCP. socket.socket() and
#           socket.create_server() make sockets whose protocol is 0, and what they accept keeps Nagle on:
#           so does each connection of a server that is given such a socket, as uvicorn gives it with
#           `sockets=` or its own Config.bind_socket(). An answer in two writes then waits for the
#           client's delayed acknowledgement, some 40 ms.
# So:       make the socket with socket.socket(family, SOCK_STREAM, IPPROTO_TCP), or let asyncio bind it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q uvicorn==0.54.0

cat > probe.py <<'PY'
import asyncio
import socket
import sys

import uvicorn


async def is_nodelay(**where):
    seen = asyncio.get_running_loop().create_future()

    async def accepted(_reader, writer):
        of = writer.get_extra_info("socket")
        seen.set_result(of.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
        writer.close()

    server = await asyncio.start_server(accepted, **where)
    async with server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        found = await seen
        writer.close()
    return found


def by_name():
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.bind(("127.0.0.1", 0))
    return made


async def main():
    of_uvicorn = uvicorn.Config("none:none", host="127.0.0.1", port=0, log_level="critical").bind_socket()
    return {
        "bound by asyncio": await is_nodelay(host="127.0.0.1", port=0),
        "create_server": await is_nodelay(sock=socket.create_server(("127.0.0.1", 0))),
        "bind_socket of uvicorn": await is_nodelay(sock=of_uvicorn),
        "IPPROTO_TCP": await is_nodelay(sock=by_name()),
    }


seen = asyncio.run(main())
print("uvicorn", uvicorn.__version__, "on Python", sys.version.split()[0])
print("expected: TCP_NODELAY on each")
print(f"seen:     {seen}")
same = list(seen.values()) == [True, False, False, True]
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
