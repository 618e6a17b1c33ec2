"""The HTTP service: a FastAPI application around a predictor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from bunryu.inference.predictor import Predictor
from bunryu.serving.batcher import CAPACITY, WAIT, Batcher
from bunryu.serving.errors import HttpError, Log
from bunryu.serving.handlers import Answers
from bunryu.serving.middleware import AccessMiddleware, ErrorMiddleware, HostPolicy, security_headers
from bunryu.serving.pages import content_security_policy, demo_page, docs_page
from bunryu.serving.schemas import (
    Bounds,
    Demo,
    ErrorAnswer,
    Health,
    Limits,
    Model,
    Prediction,
    Predictions,
    RequestSchemas,
    read_json,
)

ERRORS = {
    400: "a Host name that is not served here, or a body that is not JSON",
    401: "the token is missing or wrong",
    408: "the body took too long to arrive",
    413: "the body is too large",
    415: "the body is not said to be JSON",
    422: "the body is not what the model takes, or is beyond a limit",
    500: "the service failed",
    503: "too much to do; Retry-After says when to try again",
}
ANY, BODY = (400, 401), (400, 401, 408, 413, 415, 422, 500, 503)  # what can go wrong without and with a body


@dataclass(frozen=True)
class Settings:
    """How the service behaves.

    Args:
        hosts: which Host headers are answered.
        token: what a caller must have; None for nothing.
        limits: what a request may ask for.
        capacity: texts that may be waiting.
        wait: seconds that a batch waits for company.
        deadline: seconds a request may take once its body is there.
        body_seconds: seconds its body may take to arrive.
    """

    hosts: HostPolicy = field(default_factory=HostPolicy)
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    capacity: int = CAPACITY
    wait: float = WAIT
    deadline: float = 10.0
    body_seconds: float = 10.0


def create_app(
    predictor: Predictor, settings: Settings, log: Log, inference: ThreadPoolExecutor | None = None
) -> FastAPI:
    """Build the application; its batcher runs from start-up to shutdown.

    Args:
        predictor: loaded and checked.
        settings: how the service behaves.
        log: takes lines of the access log and of what went wrong.
        inference: an executor of one thread, the one in which the predictor has run so far.
    """
    limits = settings.limits
    assert limits.texts <= settings.capacity, "the largest request has to fit into the queue"
    thread = inference or ThreadPoolExecutor(1, "inference")
    batcher = Batcher(predictor, thread, settings.capacity, settings.wait)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        try:
            # Warm before the first client comes: a first batch is much slower than the others.
            await batcher.submit([""], [""] if predictor.about.takes_pairs else None, 60.0)
            yield
        finally:
            await batcher.stop()

    app = FastAPI(
        title=f"bunryu serve: {predictor.name}",
        description=f"Classifies documents as {' or '.join(predictor.labels)}.",
        version=version("bunryu"),
        openapi_url=None,  # ours says more, and its page needs nothing from elsewhere
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    answers = Answers(predictor, batcher, settings.deadline, log)
    bodies = RequestSchemas(limits, predictor.about.takes_pairs)
    _add_predict(app, answers, bodies)
    if len(predictor.labels) == 2 and not predictor.about.takes_pairs:
        _add_demo(app, answers, bodies)
    _add_facts(app, predictor, batcher, limits)
    api = app.openapi()
    if settings.token is not None:
        _describe_token(api)
    pages = {"/": demo_page(), "/docs": docs_page(api)}
    for path, page in pages.items():
        _add_page(app, path, page, "text/html")
    _add_page(app, "/openapi.json", json.dumps(api, ensure_ascii=False), "application/json")
    app.add_exception_handler(HTTPException, _not_there)
    app.add_middleware(
        AccessMiddleware,
        hosts=settings.hosts,
        token=settings.token,
        body_bytes=limits.bytes,
        body_seconds=settings.body_seconds,
    )
    policy = content_security_policy(pages.values(), settings.hosts.names)
    app.add_middleware(ErrorMiddleware, headers=security_headers(policy), log=log)
    return app


def _add_predict(app: FastAPI, answers: Answers, bodies: RequestSchemas) -> None:
    @app.post(
        "/predict",
        summary="Classify one document or several",
        responses={200: {"model": Prediction | Predictions}, **_errors(*BODY)},
        openapi_extra=bodies.described(),
    )
    async def predict(request: Request) -> Response:
        texts, pairs, listed = bodies.documents(await read_json(request))
        predictions = answers.predictions(await answers.logits(request, texts, pairs))
        return _json({"predictions": predictions} if listed else predictions[0])


def _add_demo(app: FastAPI, answers: Answers, bodies: RequestSchemas) -> None:
    @app.post(
        "/api",
        summary="Classify one document, in the words of the tutorial's page",
        responses={200: {"model": Demo}, **_errors(*BODY)},
        openapi_extra=bodies.described_sentence(),
    )
    async def demo(request: Request) -> Response:
        sentence = bodies.sentence(await read_json(request))
        return _json(answers.demo(sentence, await answers.logits(request, [sentence], None)))


def _add_facts(app: FastAPI, predictor: Predictor, batcher: Batcher, limits: Limits) -> None:
    model = Model(
        name=predictor.name,
        labels=list(predictor.labels),
        takes_pairs=predictor.about.takes_pairs,
        max_seq_length=predictor.about.max_seq_length,
        runtime=predictor.runtime,
        device=predictor.device,
        version=app.version,
        limits=Bounds(texts=limits.texts, characters=limits.characters, bytes=limits.bytes),
    )

    @app.get("/health", summary="Whether the service answers", responses=_errors(400))
    async def health() -> Health:
        return Health(status="ok", queued_texts=batcher.queued)

    @app.get("/model", summary="What is served", responses=_errors(*ANY))
    async def facts() -> Model:
        return model


def _add_page(app: FastAPI, path: str, content: str, media_type: str) -> None:
    @app.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=media_type)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer, "description": ERRORS[status]} for status in statuses}


def _describe_token(api: dict[str, Any]) -> None:
    """Say in the description that all but /health need the token."""
    api["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    api["security"] = [{"token": []}]
    api["paths"]["/health"]["get"]["security"] = []


def _json(answer: Mapping[str, Any]) -> Response:
    # Made by hand: checking our own answers against their schema would cost more than a small model.
    return Response(json.dumps(answer, ensure_ascii=False).encode(), media_type="application/json")


async def _not_there(_: Request, error: Exception) -> Response:
    """A path or method that does not exist, in the form of all errors."""
    assert isinstance(error, HTTPException)
    paths = "POST /predict; GET /health, /model, /openapi.json, /docs, /; POST /api with two-class models"
    return HttpError(
        error.status_code, error.detail, where="path or method", fix=paths, headers=error.headers
    ).response()
