"""Load on a server of this machine: connections that ask again as soon as they are answered, for a stated time."""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Load:
    """What came of it."""

    requests: int
    failed: int
    """Requests that were sent and not answered with 200."""
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


async def _client(host: str, port: int, request: bytes, until: float, times: list[float], failed: list[str]) -> None:
    """Ask until `until`, or until the server takes no new connections."""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return
        try:
            is_open = True
            while is_open and time.monotonic() < until:
                started = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
                body = await reader.readexactly(length)
                times.append(time.perf_counter() - started)
                if not lines[0].startswith(b"http/1.1 200"):
                    failed.append(f"{lines[0].decode()}: {body[:200].decode()}")
                is_open = b"connection: close" not in lines
        except (OSError, asyncio.IncompleteReadError) as error:
            failed.append(repr(error))
        finally:
            writer.close()


async def _all(url: str, body: bytes, clients: int, seconds: float) -> tuple[Load, list[str]]:
    host, _, rest = url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    head = f"POST /{path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    times: list[float] = []
    failed: list[str] = []
    started = time.monotonic()
    until = started + seconds
    await asyncio.gather(*(_client(host, int(port), request, until, times, failed) for _ in range(clients)))
    elapsed = time.monotonic() - started
    times.sort()
    p50, p99 = (1000 * times[min(len(times) - 1, int(len(times) * share))] if times else 0.0 for share in (0.5, 0.99))
    return Load(len(times), len(failed), elapsed, p50, p99), failed


def main() -> None:
    """Load as a process of its own: URL CLIENTS SECONDS, the body on standard input; prints the figures as JSON."""
    url, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    load, failed = asyncio.run(_all(url, sys.stdin.buffer.read(), clients, seconds))
    print(json.dumps(asdict(load)))
    for problem in failed[:5]:
        print(problem, file=sys.stderr)


if __name__ == "__main__":
    main()
