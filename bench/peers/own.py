"""What you would write yourself: FastAPI, SQLAlchemy 2 with asyncpg, and a cache in Redis.

Run by uvicorn as `bench.peers.own:create_app`; `DATABASE_URL` names the database, and `REDIS_URL`
the cache, without which it reads from the database alone. It keeps any JSON object, in collections,
with versions as ETags. Reads go through the cache, writes delete what it has. What it filters by is
indexed. It promises less than the service: a write that overlaps a read may leave the older version
in the cache until the TTL, and bodies are not checked beyond being JSON objects.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, cast

import pydantic_core
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy import BigInteger, DateTime, Index, String, insert, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

POOL: Final = 10
TTL_SECONDS: Final = 60
BATCH: Final = 1_000
MAX_LIMIT: Final = 1_000

Data = dict[str, Any]


class Base(DeclarativeBase):
    """All tables."""


class Document(Base):
    """A row: a JSON object under an id, in a collection."""

    __tablename__ = "documents"

    collection: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    data: Mapped[Data] = mapped_column(JSONB)


TEAM: Final = Document.data["team"].astext
N: Final = sql_cast(Document.data["n"].astext, BigInteger)
Index("documents_team", Document.collection, TEAM, Document.id)
Index("documents_n", Document.collection, N, Document.id)


class Stored(BaseModel):
    """A document as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    version: int
    created_at: datetime
    updated_at: datetime
    data: Data

    @property
    def etag(self) -> str:
        """The version in quotes."""
        return f'"{self.version}"'


class Line(BaseModel):
    """A line of an import of whole documents."""

    id: str
    data: Data


class Page(BaseModel):
    """A part of a list, and the path of the next part."""

    items: list[Stored]
    next: str | None


class Report(BaseModel):
    """What an import has written."""

    written: int


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    """Give a session for one request."""
    async with request.app.state.sessions() as one:
        yield one


def cache(request: Request) -> Redis | None:
    """Return the cache, if there is one."""
    return cast("Redis | None", request.app.state.cache)


Session = Annotated[AsyncSession, Depends(session)]
Cache = Annotated[Redis | None, Depends(cache)]
Known = Annotated[str | None, Header(alias="If-None-Match")]


def key(collection: str, id_: str) -> str:
    """Return the name of a document in the cache."""
    return f"documents:{collection}:{id_}"


async def read(
    collection: str, id_: str, one: Session, cached: Cache, known: Known = None
) -> Response:
    """Read through the cache; 304 where the client has this version."""
    found = cast("bytes | None", await cached.get(key(collection, id_))) if cached else None
    if found is None:
        row = await one.get(Document, (collection, id_))
        if row is None:
            raise HTTPException(404)
        stored = Stored.model_validate(row)
        found = stored.etag.encode() + b"\n" + stored.model_dump_json().encode()
        if cached:
            await cached.set(key(collection, id_), found, ex=TTL_SECONDS)
    tag, _, body = found.partition(b"\n")
    headers = {"ETag": tag.decode()}
    if known == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


async def create(collection: str, data: Data, one: Session, response: Response) -> Stored:
    """Store a document under a new id."""
    now = datetime.now(UTC)
    row = Document(
        collection=collection, id=str(uuid.uuid4()), created_at=now, updated_at=now, data=data
    )
    one.add(row)
    await one.commit()
    stored = Stored.model_validate(row)
    response.headers["ETag"] = stored.etag
    response.headers["Location"] = f"/{collection}/{stored.id}"
    return stored


async def replace(
    collection: str, id_: str, data: Data, one: Session, cached: Cache, response: Response
) -> Stored:
    """Store a document under this id, whether there is one or not."""
    now = datetime.now(UTC)
    new = upsert(Document).values(
        collection=collection, id=id_, version=1, created_at=now, updated_at=now, data=data
    )
    statement = new.on_conflict_do_update(
        index_elements=[Document.collection, Document.id],
        set_={
            "version": Document.version + 1,
            "updated_at": new.excluded.updated_at,
            "data": new.excluded.data,
        },
    ).returning(Document)
    row = (await one.scalars(statement)).one()
    await one.commit()
    return await _written(Stored.model_validate(row), collection, cached, response)


async def patch(
    collection: str, id_: str, change: Data, one: Session, cached: Cache, response: Response
) -> Stored:
    """Merge a patch into a document (RFC 7396)."""
    row = await one.get(Document, (collection, id_), with_for_update=True)
    if row is None:
        raise HTTPException(404)
    row.data = merged(row.data, change)
    row.version += 1
    row.updated_at = datetime.now(UTC)
    await one.commit()
    return await _written(Stored.model_validate(row), collection, cached, response)


def merged(target: Any, change: Any) -> Any:
    """Return a value with a merge patch applied."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


async def _written(
    stored: Stored, collection: str, cached: Redis | None, response: Response
) -> Stored:
    if cached:
        await cached.delete(key(collection, stored.id))
    response.headers["ETag"] = stored.etag
    return stored


class Filters(BaseModel):
    """What a list is filtered by, and which part of it is wanted."""

    team: str | None = None
    n_from: int | None = None
    n_below: int | None = None
    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50


async def list_(
    collection: str,
    filters: Annotated[Filters, Query()],
    one: Session,
    request: Request,
    response: Response,
) -> Page:
    """Read a page of documents, in the order of their ids."""
    statement = select(Document).where(Document.collection == collection)
    if filters.team is not None:
        statement = statement.where(filters.team == TEAM)
    if filters.n_from is not None:
        statement = statement.where(filters.n_from <= N)
    if filters.n_below is not None:
        statement = statement.where(filters.n_below > N)
    if filters.after is not None:
        statement = statement.where(Document.id > filters.after)
    rows = (await one.scalars(statement.order_by(Document.id).limit(filters.limit + 1))).all()
    items = [Stored.model_validate(row) for row in rows[: filters.limit]]
    following = None
    if len(rows) > filters.limit:
        url = request.url.include_query_params(after=items[-1].id)
        following = f"{url.path}?{url.query}"
        response.headers["Link"] = f'<{following}>; rel="next"'
    return Page(items=items, next=following)


async def import_(
    collection: str, request: Request, one: Session, *, whole: bool = False
) -> Report:
    """Store a document a line, a thousand at a time; `whole`: the lines have ids."""
    now = datetime.now(UTC)
    common = {"collection": collection, "version": 1, "created_at": now, "updated_at": now}
    rows: list[dict[str, Any]] = []
    written = 0
    async for text in lines(request):
        if whole:
            line = Line.model_validate_json(text)
            rows.append(common | {"id": line.id, "data": line.data})
        else:
            rows.append(common | {"id": str(uuid.uuid4()), "data": pydantic_core.from_json(text)})
        if len(rows) == BATCH:
            written += await _store(one, rows)
            rows = []
    return Report(written=written + await _store(one, rows))


async def _store(one: AsyncSession, rows: list[dict[str, Any]]) -> int:
    if rows:
        await one.execute(insert(Document), rows)
        await one.commit()
    return len(rows)


async def lines(request: Request) -> AsyncIterator[bytes]:
    """Yield the lines of a body as it comes in."""
    rest = b""
    async for part in request.stream():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


async def export(collection: str, request: Request) -> StreamingResponse:
    """Stream the data of all documents, a line each."""

    async def texts() -> AsyncIterator[bytes]:
        statement = (
            select(Document.data)
            .where(Document.collection == collection)
            .order_by(Document.id)
            .execution_options(yield_per=BATCH)
        )
        async with request.app.state.sessions() as one:
            async for part in (await one.stream_scalars(statement)).partitions():
                yield b"".join(pydantic_core.to_json(data) + b"\n" for data in part)

    return StreamingResponse(texts(), media_type="application/x-ndjson")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database, with its tables, and the cache."""
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine: AsyncEngine = create_async_engine(
        url,
        pool_size=POOL,
        max_overflow=0,
        json_serializer=lambda value: pydantic_core.to_json(value).decode(),
        json_deserializer=partial(pydantic_core.from_json, cache_strings="keys"),
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    redis_url = os.environ.get("REDIS_URL")
    app.state.cache = Redis.from_url(redis_url) if redis_url else None
    yield
    if app.state.cache is not None:
        await app.state.cache.aclose()
    await engine.dispose()


def create_app() -> FastAPI:
    """Return the application."""
    app = FastAPI(lifespan=lifespan)
    route = app.add_api_route
    route("/{collection}", list_, methods=["GET"])
    route("/{collection}", create, methods=["POST"], status_code=201)
    route("/{collection}/_import", import_, methods=["POST"])
    route("/{collection}/_export", export, methods=["GET"])
    route("/{collection}/{id_}", read, methods=["GET"])
    route("/{collection}/{id_}", replace, methods=["PUT"])
    route("/{collection}/{id_}", patch, methods=["PATCH"])
    return app
