"""Closed-loop HTTP load: ``load.py PORT CONNECTIONS REQUESTS FILE`` prints requests a second and latencies.

Each connection sends its next sentence when the answer to the last has come. A client written for speed, in
a process of its own, since it shares the cores with the server it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop


async def connection(port: int, bodies: list[bytes], latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while bodies:
        body = bodies.pop()
        start = time.perf_counter()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(size)
        latencies.append(time.perf_counter() - start)
    writer.close()


async def main() -> None:
    port, connections, requests = map(int, sys.argv[1:4])
    texts = json.loads(Path(sys.argv[4]).read_text("utf-8"))
    bodies = [json.dumps({"text": texts[n % len(texts)]}).encode() for n in range(requests)]
    latencies: list[float] = []
    start = time.perf_counter()
    await asyncio.gather(*(connection(port, bodies, latencies) for _ in range(connections)))
    seconds = time.perf_counter() - start
    latencies.sort()
    print(
        json.dumps(
            {
                "rate": len(latencies) / seconds,
                "p50": latencies[len(latencies) // 2],
                "p99": latencies[int(len(latencies) * 0.99)],
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main())
