"""Sends requests to a service at a given rate, from a separate process; prints the answers as JSON.

Arguments: URL, connections, seconds, requests a second (0: each connection as fast as it is answered), body file.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import httpx


async def main(url, num_connections, seconds, rate, body):
    statuses, latencies, problems = Counter(), [], []
    limits = httpx.Limits(max_connections=num_connections, max_keepalive_connections=num_connections)
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        await asyncio.gather(*(client.get(f"{url}/healthz") for _ in range(num_connections)))
        start = time.perf_counter()

        async def ask():
            begun = time.perf_counter()
            try:
                response = await client.post(f"{url}/predict", content=body, headers=headers)
            except httpx.HTTPError as error:
                problems.append(f"{type(error).__name__}: {error}")
                return
            statuses[response.status_code] += 1
            latencies.append(time.perf_counter() - begun)
            if response.status_code == 200 and b"outputs" not in response.content:
                problems.append("no outputs")

        async def worker(number):
            """One connection: at its own fixed times, or one request after the other."""
            count = 0
            while (now := time.perf_counter() - start) < seconds:
                if rate:
                    due = (number + count * num_connections) / rate
                    if due >= seconds:
                        break
                    await asyncio.sleep(max(0.0, due - now))
                await ask()
                count += 1

        await asyncio.gather(*(worker(number) for number in range(num_connections)))
        elapsed = time.perf_counter() - start
    ordered = sorted(latencies)
    print(json.dumps({
        "statuses": dict(statuses),
        "problems": problems[:5],
        "num_problems": len(problems),
        "num_requests": sum(statuses.values()) + len(problems),
        "seconds": elapsed,
        "requests_per_second": statuses[200] / elapsed,
        "p50_ms": 1e3 * ordered[len(ordered) // 2] if ordered else None,
        "p99_ms": 1e3 * ordered[int(0.99 * len(ordered))] if ordered else None,
    }))  # fmt: skip


if __name__ == "__main__":
    url, connections, seconds, rate, body_file = sys.argv[1:]
    asyncio.run(main(url, int(connections), float(seconds), float(rate), Path(body_file).read_bytes()))
