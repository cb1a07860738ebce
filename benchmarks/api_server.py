"""API server of the benchmarks, with pages of 100 that are serialised in advance.

An asyncio protocol that looks up the cursor in a dict and writes the prepared response after
LATENCY seconds. Its cost does not distort the results: a response takes 15 to 35 microseconds of
CPU time, and the fastest client needs some 700 on another core. Run as
`api_server.py FINE_TUNES LATENCY`; it prints its port. `/requests` returns the number of requests
since the last call.
"""

import asyncio
import json
import os
import random
import re
import string
import sys

PAGE = 100
CURSOR = re.compile(rb"^GET /fine-tunes/?\?\S*?starting_after=(\w+)")


def fine_tunes(number: int) -> list[dict[str, str]]:
    letters = string.ascii_letters + string.digits
    rng = random.Random(0)
    return [
        {
            "id": f"fine_tune_{''.join(rng.choices(letters, k=22))}",
            "name": f"Voice {n}, support line",
            "description": f"The voice of customer {n} for the support line, second recording.",
            "language": rng.choice(("en", "de", "fr")),
            "model_id": rng.choice(("sonic-2", "sonic-3-2025-10-27", "sonic-3-2026-01-12")),
            "dataset": f"dataset_{n % 97:08d}",
            "status": rng.choice(("completed", "completed", "completed", "failed")),
        }
        for n in range(number)
    ]


def response(body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def responses(number: int) -> dict[bytes | None, bytes]:
    """Return each page's response by its cursor; the SDK needs an empty page after the last."""
    items = fine_tunes(number)
    found: dict[bytes | None, bytes] = {}
    cursor = None
    for begin in (*range(0, number, PAGE), number):
        page = items[begin : begin + PAGE]
        body = {"data": page, "has_more": begin + PAGE < number}
        found[cursor] = response(json.dumps(body, separators=(",", ":")).encode())
        cursor = page[-1]["id"].encode() if page else None
    return found


class ListProtocol(asyncio.Protocol):
    requests = 0

    def __init__(self, responses: dict[bytes | None, bytes], latency: float) -> None:
        self._responses = responses
        self._latency = latency
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if head.startswith(b"GET /requests"):
                self._transport.write(response(str(ListProtocol.requests).encode()))
                ListProtocol.requests = 0
                continue
            ListProtocol.requests += 1
            found = CURSOR.match(head)
            content = self._responses[found[1] if found else None]
            if self._latency:
                self._loop.call_later(self._latency, self._transport.write, content)
            else:
                self._transport.write(content)


async def main(number: int, latency: float) -> None:
    prepared = responses(number)
    server = await asyncio.get_running_loop().create_server(
        lambda: ListProtocol(prepared, latency), "127.0.0.1", 0, backlog=128
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
