"""What the tests of the service share: a predictor to look into, a server on loopback, a plain client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI

from bunryu.data.cleaner import Cleaner
from bunryu.models.metadata import ModelMetadata, ParitySample
from bunryu.serving.app import Settings, create_app
from bunryu.serving.server import Server

LENGTH = 128


class FakePredictor:
    """Class 1 is the likelier, the longer the text; waits at its gate; fails at certain words."""

    labels: tuple[str, ...] = ("짧다", "길다")
    name, runtime, device, unknown_id = "fake", "torch", "cpu", 1

    def __init__(self, pairs: bool = False) -> None:
        self.metadata = ModelMetadata(
            Cleaner(), LENGTH, [ParitySample("a", "b" if pairs else None, (0.0, 0.0))]
        )
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()
        self.rounds: list[list[str]] = []
        self.batches: list[list[str]] = []

    def check_parity(self) -> float:
        return 0.0

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        if "unreadable" in texts:
            raise ValueError("cannot be encoded")
        joined = [text + pair for text, pair in zip(texts, pairs or [""] * len(texts), strict=True)]
        self.rounds.append(joined)
        lengths = np.array([len(text) + 2 for text in joined])
        counts = np.array([0, len(joined)])  # of unknown tokens, and of all
        return SimpleNamespace(
            texts=joined, lengths=lambda limit: lengths.clip(max=limit), is_cut=lambda limit: lengths > limit,
            count_of=lambda _: counts,
        )  # fmt: skip

    def logits(self, encoded: Any, batches: Iterable[Any]) -> npt.NDArray[np.float32]:
        logits = np.zeros((len(encoded.texts), len(self.labels)), dtype=np.float32)
        for batch in batches:
            texts = [encoded.texts[row] for row in batch]
            self.batches.append(texts)
            self.reached.set()
            assert self.gate.wait(30)
            if "poison" in texts:
                raise RuntimeError("the network failed")
            logits[batch, 1] = [float("nan") if text == "nan" else len(text) / 10 for text in texts]
        return logits


def app_of(predictor: Any, settings: Settings | None = None, log: Any = lambda _: None) -> FastAPI:
    return create_app(predictor, settings or Settings(), log)


@contextmanager
def running(app: Any) -> Iterator[tuple[int, Server]]:
    """A server in a thread; gives its port and itself."""
    ready = threading.Event()
    server = Server(app, ready.set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(30)
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def what(self) -> str:
        """What an error says; fails if it has another form than all errors."""
        assert self.headers["content-type"] == "application/json"
        assert b"Traceback" not in self.body
        (error,) = self.json.values()
        assert set(error) == {"what", "where", "fix"}
        return str(error["what"])


def parsed(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body)


def predict_request(body: bytes, **headers: str) -> bytes:
    length = str(len(body))
    given = {"host": "localhost", "content-type": "application/json", "content-length": length, **headers}
    lines = ["POST /predict HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ask(port: int, request: bytes) -> Answer:
    """One request on a connection of its own, once the server listens."""
    while True:
        with suppress(ConnectionRefusedError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        await asyncio.sleep(0.05)
    try:
        writer.write(request)
        answer = parsed(await reader.readuntil(b"\r\n\r\n"))
        return replace(answer, body=await reader.readexactly(int(answer.headers["content-length"])))
    finally:
        writer.close()
        await writer.wait_closed()


async def post(port: int, body: object, **headers: str) -> Answer:
    return await ask(port, predict_request(json.dumps(body).encode(), **headers))


async def queued_texts(port: int, least: int) -> int:
    """How many texts wait in the server, once there are at least so many."""
    while True:
        health = await ask(port, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        if (queued := int(health.json["queued_texts"])) >= least:
            return queued


def raw(port: int, data: bytes) -> bytes:
    """All that the server answers to some bytes until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as answer:
            return answer.read()
