"""The composition root: the only module that builds things, and the application's life."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from credenza import __version__, errors, wire
from credenza.batches import Batches
from credenza.bulk import Bulk
from credenza.cache import Cache
from credenza.collections import Collections
from credenza.database import Database
from credenza.documents import Documents
from credenza.exports import Exports
from credenza.grouped import Grouped
from credenza.indexing import Indexing
from credenza.lifecycle import Lifecycle
from credenza.lists import Lists
from credenza.pages import Pages
from credenza.records import Records
from credenza.rows import Clock
from credenza.settings import Settings
from credenza.slots import Slots
from credenza.snapshots import Snapshots
from credenza.store import Store
from credenza.telemetry import Metrics
from credenza.tracing import Tracing
from credenza.transfer import Imports
from credenza.upkeep import Upkeep
from credenza.web import openapi, problems
from credenza.web.bodies import Bodies
from credenza.web.collections import CollectionEndpoints
from credenza.web.documents import DocumentEndpoints
from credenza.web.lane import Lane
from credenza.web.lists import ListEndpoints
from credenza.web.observe import Observe
from credenza.web.operations import OperationsEndpoints
from credenza.writes import Writes


class Service:
    """Everything that one process is made of, put together; nothing is connected yet."""

    def __init__(self, settings: Settings, *, url: str) -> None:
        self.settings = settings
        self.lifecycle = Lifecycle()
        self._checking: asyncio.Task[wire.Check] | None = None
        self.metrics = Metrics(aggregated=settings.workers > 1)
        self.tracing = Tracing(settings)
        self.records = Records(self.metrics, level=settings.log_level, as_json=settings.logs_json)
        self.database = Database(settings, url=url, metrics=self.metrics)
        clock, slots = Clock(), Slots()
        self.store = Store(self.database, clock, slots, self.metrics)
        self.bulk = Bulk(self.database, clock, slots)
        self.cache = Cache(settings, self.metrics)
        self.writes = Writes()
        self.collections = Collections(self.store, self.cache, self.writes, self.metrics)
        self.grouped = Grouped(
            self.store,
            Batches(self.database, clock, slots),
            self.cache,
            self.collections,
            self.writes,
            self.metrics,
        )
        self.documents = Documents(
            self.store, self.cache, self.collections, self.grouped, self.writes
        )
        self.lists = Lists(Snapshots(self.database, self.metrics), self.store, settings)
        self.pages = Pages(self.lists, self.collections, self.cache)
        self.exports = Exports(self.bulk, self.collections, self.metrics)
        self.imports = Imports(
            self.bulk, self.cache, self.collections, self.writes, self.metrics, settings
        )
        self.upkeep = Upkeep(
            self.database,
            self.collections,
            Indexing(self.database, self.collections, self.metrics),
            self.metrics,
            self.lifecycle,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be connected; at the end finish the writes, let go of Redis, then of the pool."""
        await self.database.open()
        await self.cache.start()
        self.upkeep.start()
        try:
            yield
        finally:
            await self.upkeep.stop()
            await self.writes.settle()
            await self.cache.close()
            await self.database.close()
            self.records.flush()
            await asyncio.to_thread(self.tracing.close)

    async def check_database(self) -> wire.Check:
        """Return the state of the database; and of its schema, until that was found to be right.

        However many ask at once, the database is asked once: probes have no token and no limit.
        """
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check_database(), context=Context())
        return await asyncio.shield(self._checking)

    async def _check_database(self) -> wire.Check:
        wrong = None
        try:
            if self.lifecycle.started:
                await self.database.ping()
            else:
                wrong = await self.upkeep.schema()
        except errors.Problem as problem:
            return wire.Check(status="down", detail=problem.detail)
        return wire.Check(status="down" if wrong else "ok", detail=wrong)

    async def check_cache(self) -> wire.Check:
        """Return the state of the cache; without it everything works, only slower."""
        status, detail = await self.cache.check()
        return wire.Check(status=status, detail=detail)


def create_app(service: Service) -> Observe:
    """Return what serves: observe → lane → router; `service` must be running meanwhile."""
    settings = service.settings
    single = DocumentEndpoints(
        service.documents,
        service.collections,
        Bodies(settings),
        is_open=not settings.wants_token,
    )
    return Observe(
        Lane(_create_api(service, single), service.documents, single),
        settings=settings,
        metrics=service.metrics,
        lifecycle=service.lifecycle,
        records=service.records,
        tracing=service.tracing,
    )


def _create_api(service: Service, single: DocumentEndpoints) -> FastAPI:
    app = FastAPI(
        title="Credenza",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    many = ListEndpoints(
        service.pages, service.lists, service.exports, service.imports, Bodies(service.settings)
    )
    root = APIRouter(generate_unique_id_function=_operation_id)
    _operations(service).mount(app, root)
    routers = (root, *_document_routers(single, many), _collections_router(service))
    for router in routers:
        app.include_router(router)
    app.state.routes = [route for router in routers for route in router.routes]
    problems.install(app)
    return app


def _document_routers(single: DocumentEndpoints, many: ListEndpoints) -> list[APIRouter]:
    routers = []
    for prefix, named in (("/data", ()), ("/v1/data/{collection}", (openapi.COLLECTION,))):
        router = APIRouter(prefix=prefix, generate_unique_id_function=_operation_id)
        many.mount(router, named)
        single.mount(router, named)
        routers.append(router)
    return routers


def _collections_router(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1/collections", generate_unique_id_function=_operation_id)
    CollectionEndpoints(service.collections, Bodies(service.settings)).mount(router)
    return router


def _operations(service: Service) -> OperationsEndpoints:
    return OperationsEndpoints(
        service.settings,
        service.metrics,
        service.lifecycle,
        {"database": service.check_database, "cache": service.check_cache},
    )


def _operation_id(route: APIRoute) -> str:
    """Return a name that is unique and stable: the path's fixed parts and the endpoint's name."""
    parts = [part for part in route.path.split("/") if part and not part.startswith("{")]
    return "_".join([*parts, route.name.strip("_")]).replace("__", "_")
