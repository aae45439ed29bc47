"""What operators and newcomers ask for: health, metrics, the service document, the API's docs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import fastapi_offline
import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from credenza import __version__, wire
from credenza.lifecycle import Lifecycle
from credenza.settings import Settings
from credenza.telemetry import Metrics
from credenza.web import openapi
from credenza.web.answers import as_json

CHECK_SECONDS: Final = 1.0
"""How long `/health` waits for one dependency."""

ASSETS: Final = Path(fastapi_offline.__file__).parent / "static"
UNCACHED: Final = {"Cache-Control": "no-store"}

Checker = Callable[[], Awaitable[wire.Check]]


class OperationsEndpoints:
    """The endpoints that are not about documents; `checkers` ask one dependency each."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        lifecycle: Lifecycle,
        checkers: dict[str, Checker],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._checkers = checkers

    def mount(self, app: FastAPI, router: APIRouter) -> None:
        """Add the routes."""
        route = router.add_api_route
        route("/v1", self.service, methods=["GET"], **_SERVICE)
        route("/health", self.health, methods=["GET"], **_HEALTH)
        route("/health/live", self.live, methods=["GET"], **_LIVE)
        route("/health/ready", self.ready, methods=["GET"], **_READY)
        route("/health/startup", self.startup, methods=["GET"], **_STARTUP)
        for path, page in (
            ("/metrics", self.metrics),
            ("/openapi.json", self.openapi),
            ("/docs", self.swagger),
            ("/redoc", self.redoc),
        ):
            route(path, page, methods=["GET"], include_in_schema=False)
        for path, page in (
            ("/v1", self.service),
            ("/health", self.health),
            ("/health/live", self.live),
            ("/health/ready", self.ready),
            ("/health/startup", self.startup),
            ("/metrics", self.metrics),
            ("/openapi.json", self.openapi),
        ):
            route(
                path, page, methods=["HEAD"], name=f"head_{page.__name__}", include_in_schema=False
            )
        app.mount("/assets", StaticFiles(directory=ASSETS))

    async def service(self, request: Request) -> Response:
        """Say what this is and where to go."""
        return as_json(
            wire.ServiceDocument(
                name="credenza",
                version=__version__,
                links={
                    "documents": "/data",
                    "collections": "/v1/collections",
                    "openapi": "/openapi.json",
                    "docs": "/docs",
                    "health": "/health",
                },
                limits=wire.Limits(
                    max_body_bytes=self._settings.max_body_bytes,
                    max_depth=self._settings.max_depth,
                    max_page_bytes=self._settings.max_page_bytes,
                    max_limit=1000,
                ),
            )
        )

    async def health(self, request: Request) -> Response:
        """Answer 200 while the process serves, with the state of each dependency."""
        checks = await self._checks()
        worst = "ok" if all(check.status in {"ok", "off"} for check in checks.values()) else ""
        health = wire.Health(status=worst or "degraded", version=__version__, checks=checks)
        return as_json(health, headers=UNCACHED)

    async def live(self, request: Request) -> Response:
        """Answer for the process alone."""
        return self._state("ok", {})

    async def ready(self, request: Request) -> Response:
        """Answer 503 with the culprit unless requests can be served."""
        if self._lifecycle.draining:
            return self._state("unavailable", {"process": _draining()})
        checks = await self._checks()
        down = {name: check for name, check in checks.items() if check.status == "down"}
        return self._state("unavailable" if down else "ok", down or checks)

    async def startup(self, request: Request) -> Response:
        """Answer 503 until the schema was once found to be as it must be."""
        if self._lifecycle.started:
            return self._state("ok", {})
        return self._state("unavailable", await self._checks())

    async def _checks(self) -> dict[str, wire.Check]:
        found = await asyncio.gather(*(_within(check()) for check in self._checkers.values()))
        return dict(zip(self._checkers, found, strict=True))

    def _state(self, status: str, checks: dict[str, wire.Check]) -> Response:
        health = wire.Health(status=status, version=__version__, checks=checks)
        return as_json(health, status=200 if status == "ok" else 503, headers=UNCACHED)

    async def metrics(self, request: Request) -> Response:
        """Answer with all series, in the text format or as OpenMetrics."""
        accept = request.headers.get("accept", "")
        text, media_type = self._metrics.exposition(accept)
        return Response(text, media_type=media_type, headers=UNCACHED)

    async def openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document."""
        found = openapi.document(request.app, self._settings)
        return Response(msgspec.json.encode(found), media_type="application/json")

    async def swagger(self, request: Request) -> HTMLResponse:
        """Show the API in Swagger UI, from assets that this service has itself."""
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Credenza",
            swagger_js_url="/assets/swagger-ui-bundle.js",
            swagger_css_url="/assets/swagger-ui.css",
            swagger_favicon_url="/assets/favicon.png",
        )

    async def redoc(self, request: Request) -> HTMLResponse:
        """Show the API in Redoc, from assets that this service has itself."""
        return get_redoc_html(
            openapi_url="/openapi.json",
            title="Credenza",
            redoc_js_url="/assets/redoc.standalone.js",
            redoc_favicon_url="/assets/favicon.png",
            with_google_fonts=False,
        )


async def _within(check: Awaitable[wire.Check]) -> wire.Check:
    try:
        return await asyncio.wait_for(check, CHECK_SECONDS)
    except TimeoutError:
        return wire.Check(status="down", detail=f"no answer within {CHECK_SECONDS:g} s")


def _draining() -> wire.Check:
    return wire.Check(status="down", detail="draining: this process is about to end")


_UNAVAILABLE: Final = {
    "description": "Not now; the culprit is named.",
    "content": openapi.content(openapi.model(wire.Health)),
}
_ANSWER: Final = {
    "description": "The state.",
    "content": openapi.content(openapi.model(wire.Health)),
}
_SERVICE: Final = openapi.operation(
    "Describe the service",
    answers={
        200: {
            "description": "What it is.",
            "content": openapi.content(openapi.model(wire.ServiceDocument)),
        }
    },
)
_HEALTH: Final = openapi.operation(
    "Tell the state of everything", answers={200: _ANSWER}, is_probe=True
)
_LIVE: Final = openapi.operation(
    "Tell whether the process lives", answers={200: _ANSWER}, is_probe=True
)
_READY: Final = openapi.operation(
    "Tell whether requests can be served",
    answers={200: _ANSWER, 503: _UNAVAILABLE},
    is_probe=True,
)
_STARTUP: Final = openapi.operation(
    "Tell whether it has started", answers={200: _ANSWER, 503: _UNAVAILABLE}, is_probe=True
)
