"""Serving: ``bunryu serve`` against a plain FastAPI service, padded to max_seq_length and not padded.

The three run one after another in each round, on the same sentences, with 64 connections that each send the
next sentence when they have an answer; clients share the cores with the server. Also measured: what a
single request costs beyond the model's forward, memory over 10,000 requests, and the time until ready.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import machine
from bunryu.inference.opening import open_predictor
from bunryu.system.machine import resident_memory
from setting import arguments, print_table, reviews
from small import LENGTH, run_of_small, sentences

HERE = Path(__file__).parent
BUNRYU = Path(sys.executable).with_name("bunryu")
CONNECTIONS = 64
IMPORTS = "import torch; from transformers import BertForSequenceClassification"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        rounds: each measures all ways once, in turn.
        requests: a round's, of bunryu; the plain services get a quarter of them.
        single: requests one after another.
        flood: requests over which memory is watched.
    """

    rounds: int = 5
    requests: int = 4000
    single: int = 300
    flood: int = 10_000


def main() -> None:
    options = arguments(__doc__).parse_args()
    size = Size(rounds=1, requests=400, single=30, flood=1000) if options.quick else Size()
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = run_of_small(source, root, 2000 if options.quick else 20_000)
        texts = root / "texts.json"
        texts.write_text(json.dumps(sentences(source, 2000)), "utf-8")
        print(f"`model=small`, {source.name}, max_seq_length={LENGTH}. {machine.describe()}\n")
        throughput(run, texts, size)
        single(run, texts, size)
        memory(run, texts, size)
        readiness(run, size)


def command(way: str, run: Path, port: int) -> list[str]:
    if way == "bunryu":
        return [str(BUNRYU), "serve", str(run), "--port", str(port)]
    padding = "max_length" if way == "padded" else "longest"
    return [sys.executable, str(HERE / "plain_service.py"), str(run / "model"), str(port), padding]


@contextmanager
def server(way: str, run: Path) -> Iterator[tuple[int, int]]:
    """A server that answers; its port and process id."""
    port = free_port()
    process = subprocess.Popen(command(way, run, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError("the server ended")


def load(port: int, connections: int, requests: int, texts: Path) -> dict[str, float]:
    words = [sys.executable, HERE / "load.py", str(port), str(connections), str(requests), texts]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def throughput(run: Path, texts: Path, size: Size) -> None:
    ways = {"bunryu": size.requests, "padded": size.requests // 4, "unpadded": size.requests // 4}
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(size.rounds):
        found = {}
        for way in list(ways) if number % 2 == 0 else list(reversed(ways)):
            with server(way, run) as (port, _):
                load(port, CONNECTIONS, 128, texts)  # warm
                found[way] = load(port, CONNECTIONS, ways[way], texts)
        rounds.append(found)
    titles = {
        "bunryu": "bunryu serve",
        "padded": f"plain FastAPI, padded to {LENGTH}",
        "unpadded": "plain FastAPI, not padded",
    }
    targets = {"padded": ">= 4", "unpadded": ">= 2"}
    rows = []
    for way, title in titles.items():
        middle = {
            name: statistics.median(each[way][name] for each in rounds) for name in ("rate", "p50", "p99")
        }
        ratios = [each["bunryu"]["rate"] / each[way]["rate"] for each in rounds]
        rows.append(
            [
                title,
                f"{middle['rate']:.0f}",
                f"{1000 * middle['p50']:.0f}",
                f"{1000 * middle['p99']:.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                targets.get(way, ""),
            ]
        )
    print(f"{CONNECTIONS} connections, medians of {len(rounds)} rounds:\n")
    print_table(["service", "requests/s", "p50 ms", "p99 ms", "bunryu / it", "rounds", "target"], rows)


def single(run: Path, texts: Path, size: Size) -> None:
    """One request at a time, beside the same sentences through the model in this process."""
    predictor = open_predictor(run)
    documents = json.loads(texts.read_text("utf-8"))[: size.single]
    with server("bunryu", run) as (port, _):
        load(port, 1, 50, texts)
        served = load(port, 1, size.single, texts)["p50"]
    forward = []
    for document in [*documents[:50], *documents]:
        start = time.perf_counter()
        predictor.predict([document])
        forward.append(time.perf_counter() - start)
    bare = statistics.median(forward[50:])
    print_table(
        ["one request at a time", "ms at the median", "target"],
        [
            ["tokenizer and forward alone", f"{1000 * bare:.2f}", ""],
            ["bunryu serve", f"{1000 * served:.2f}", ""],
            ["difference", f"{1000 * (served - bare):.2f}", "<= 5"],
        ],
    )


def memory(run: Path, texts: Path, size: Size) -> None:
    with server("bunryu", run) as (port, pid):
        rows = []
        done = 0
        for share in (0.1, 0.25, 0.5, 1.0):
            load(port, CONNECTIONS, int(size.flood * share) - done, texts)
            done = int(size.flood * share)
            rows.append([f"{done:,}", f"{(resident_memory(pid) or 0) / 2**20:.0f}"])
    print_table(["requests answered", "resident MB"], rows)


def readiness(run: Path, size: Size) -> None:
    """Seconds until the first answer, beside importing torch and BERT alone."""
    rounds = []
    for _ in range(size.rounds):
        imports = seconds([sys.executable, "-c", IMPORTS])
        predict = seconds([str(BUNRYU), "predict", str(run)], "영화가 재미있다\n")
        start = time.perf_counter()
        with server("bunryu", run):
            rounds.append({"imports": imports, "predict": predict, "serve": time.perf_counter() - start})
    middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    more = {name: statistics.median(each[name] - each["imports"] for each in rounds) for name in middle}
    print_table(
        ["until ready", "s", "more than the imports", "target"],
        [
            ["imports of torch and BERT alone", f"{middle['imports']:.2f}", "", ""],
            ["bunryu predict, one line", f"{middle['predict']:.2f}", f"{more['predict']:.2f}", "<= 1"],
            ["bunryu serve, /health answers", f"{middle['serve']:.2f}", f"{more['serve']:.2f}", "<= 1"],
        ],
    )


def seconds(words: list[str], given: str = "") -> float:
    start = time.perf_counter()
    subprocess.run(words, input=given, capture_output=True, text=True, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
