"""The HTTP service: a FastAPI application around a predictor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from bunryu.inference.predictor import Predictor
from bunryu.serving import schemas
from bunryu.serving.batcher import Batcher
from bunryu.serving.errors import HttpError, Log
from bunryu.serving.handlers import Handlers, positive_class
from bunryu.serving.middleware import AccessMiddleware, ErrorMiddleware, HostPolicy
from bunryu.serving.pages import TEMPLATES, docs_page, security_headers

PATHS = "POST /predict; GET /health, /model, /openapi.json, /docs, /; POST /api with two-class models"
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


@dataclass(frozen=True)
class Settings:
    """How the service behaves."""

    hosts: HostPolicy = field(default_factory=HostPolicy)
    token: str | None = None  # what a caller must send
    name: str | None = None  # what pages call the model, instead of its own name
    positive: str | None = None  # the label that /api calls positive
    limits: schemas.Limits = field(default_factory=schemas.Limits)
    capacity: int = 2048  # texts that may be waiting
    wait: float = 0.002  # seconds that a batch waits for further requests
    deadline: float = 10.0  # seconds that a request may take once its body has arrived
    body_seconds: float = 10.0  # that a body may take to arrive


def create_app(
    predictor: Predictor, settings: Settings, log: Log, inference: ThreadPoolExecutor | None = None
) -> FastAPI:
    """The application; its batcher runs from start-up to shutdown, in the one thread of ``inference``."""
    limits, metadata = settings.limits, predictor.metadata
    assert limits.texts <= settings.capacity, "the largest request has to fit into the queue"
    inference = inference or ThreadPoolExecutor(1, "inference")
    batcher = Batcher(predictor, inference, settings.capacity, settings.wait)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        try:
            # Before the first client comes, as the first batch is much slower than the others.
            await batcher.submit([""], [""] if metadata.takes_pairs else None, 60.0)
            yield
        finally:
            await batcher.stop()

    app = FastAPI(
        title=f"bunryu serve: {settings.name or predictor.name}",
        description=" | ".join(predictor.labels),
        version=version("bunryu"),
        openapi_url=None,  # FastAPI's pages load scripts from elsewhere; ours say more
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    bodies = schemas.RequestSchemas(limits, metadata.takes_pairs)
    positive = positive_class(predictor.labels, settings.positive)
    handlers = Handlers(predictor.labels, positive, batcher, bodies, settings.deadline)
    _add_predictions(app, handlers, with_demo=len(predictor.labels) == 2 and not metadata.takes_pairs)
    _add_facts(app, predictor, batcher, settings)
    pages = _add_pages(app, with_token=settings.token is not None)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_middleware(AccessMiddleware, settings.hosts, settings.token, limits.bytes, settings.body_seconds)
    app.add_middleware(ErrorMiddleware, headers=security_headers(pages, settings.hosts.names), log=log)
    return app


def _add_predictions(app: FastAPI, handlers: Handlers, with_demo: bool) -> None:
    app.post(
        "/predict",
        summary="Classify one document or several",
        responses={200: {"model": schemas.Prediction | schemas.Predictions}, **_errors(*ERRORS)},
        openapi_extra=handlers.schemas.openapi_documents(),
    )(handlers.predict)
    if with_demo:
        app.post(
            "/api",
            summary="Classify one document, in the words of the tutorial's page",
            responses={200: {"model": schemas.Demo}, **_errors(*ERRORS)},
            openapi_extra=handlers.schemas.openapi_sentence(),
        )(handlers.demo)


def _add_facts(app: FastAPI, predictor: Predictor, batcher: Batcher, settings: Settings) -> None:
    name, metadata = settings.name or predictor.name, predictor.metadata
    model = schemas.Model(
        name=name, labels=list(predictor.labels), version=app.version, limits=settings.limits,
        takes_pairs=metadata.takes_pairs, max_seq_length=metadata.max_seq_length,
        runtime=predictor.runtime, device=predictor.device,
    )  # fmt: skip

    @app.get("/health", summary="Whether the service answers", responses=_errors(400))
    async def health() -> schemas.Health:
        return schemas.Health(status="ok", queued_texts=batcher.queued)

    @app.get("/model", summary="What is served", responses=_errors(400, 401))
    async def facts() -> schemas.Model:
        return model


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.ErrorAnswer, "description": ERRORS[status]} for status in statuses}


def _add_pages(app: FastAPI, with_token: bool) -> list[str]:
    """Add the pages and the description of what was added before; returns the pages."""
    api = app.openapi()
    if with_token:  # for all paths but /health
        api["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        api["security"] = [{"token": []}]
        api["paths"]["/health"]["get"]["security"] = []
    demo = (TEMPLATES / "demo.html").read_text("utf-8")
    pages = {"/": demo, "/docs": docs_page(api), "/docs/ko": docs_page(api, "ko")}
    for path, page in pages.items():
        _add_page(app, path, page, "text/html")
    _add_page(app, "/openapi.json", json.dumps(api, ensure_ascii=False), "application/json")
    return list(pages.values())


def _add_page(app: FastAPI, path: str, content: str, media_type: str) -> None:
    @app.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=media_type)


async def _not_found(_: Request, error: Any) -> Response:
    """The answer for a path or method that does not exist."""
    place, headers = "path or method", error.headers
    return HttpError(error.status_code, error.detail, where=place, fix=PATHS, headers=headers).response()
