"""Bodies in: whole ones within limits, and streams of lines in bounded memory.

Must not know what a body means; `values` decides whether it is JSON.
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request

from credenza import errors, values
from credenza.patience import Patience
from credenza.settings import Settings
from credenza.splitting import Lines
from credenza.web.fields import fields_of, length, text

JSON_TYPES = ("application/json",)
MERGE_PATCH_TYPES = ("application/merge-patch+json", "application/json")
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")


class Bodies:
    """Reads the bodies of requests under one set of limits."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_body_bytes
        self._max_text = settings.max_text_bytes
        self._max_depth = settings.max_depth
        self._patience = Patience(settings.body_timeout)

    async def value(self, request: Request) -> str:
        """Return the JSON text of a POST or PUT body."""
        _refuse_other_types(request, JSON_TYPES)
        return await self._checked(await self.whole(request))

    async def merge_patch(self, request: Request) -> str:
        """Return the JSON text of a PATCH body."""
        _refuse_other_types(
            request, MERGE_PATCH_TYPES, headers={"Accept-Patch": ", ".join(MERGE_PATCH_TYPES)}
        )
        return await self._checked(await self.whole(request))

    async def _checked(self, body: bytes) -> str:
        """Check a body; a large one in a thread, because others are served meanwhile."""
        if len(body) > values.LARGE:
            return await asyncio.to_thread(self.check, body)
        return self.check(body)

    def check(self, body: bytes) -> str:
        """Return a body as JSON text that PostgreSQL can hold and give back."""
        return values.check(body, max_depth=self._max_depth, max_text=self._max_text)

    async def whole(self, request: Request) -> bytes:
        """Return the whole body; PayloadTooLarge before more than the limit was read."""
        if length(fields_of(request)) > self._max_bytes:
            raise self._too_large()
        parts, size, has_more = [], 0, True
        try:
            with self._patience:
                while has_more:
                    part, has_more = await self._part(request)
                    size += len(part)
                    if size > self._max_bytes:
                        raise self._too_large()
                    parts.append(part)
        except TimeoutError:
            raise errors.RequestTimeout(
                f"It was not whole within {self._patience.seconds:g} s.",
                headers={"Connection": "close"},
            ) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def lines(self, request: Request, *, max_line: int) -> AsyncIterator[list[bytes]]:
        """Yield the lines of an NDJSON body as they arrive; each may have `max_line` bytes."""
        _refuse_other_types(request, NDJSON_TYPES)
        splitter = Lines(max_line=max_line)
        has_more = True
        while has_more:
            try:
                with self._patience:
                    part, has_more = await self._part(request)
            except TimeoutError:
                raise errors.RequestTimeout(
                    f"Nothing arrived for {self._patience.seconds:g} s.",
                    headers={"Connection": "close"},
                ) from None
            if lines := splitter.feed(part):
                yield lines
        if lines := splitter.end():
            yield lines

    async def _part(self, request: Request) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether more follows."""
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise errors.RequestTimeout("The client went away in the middle of the body.")
        return message.get("body", b""), message.get("more_body", False)

    def _too_large(self) -> errors.PayloadTooLarge:
        return errors.PayloadTooLarge(
            f"A body may have {self._max_bytes} bytes.", headers={"Connection": "close"}
        )


def _refuse_other_types(
    request: Request, types: tuple[str, ...], headers: dict[str, str] | None = None
) -> None:
    """Refuse a body of another media type, or in a coding (RFC 9110 §15.5.16).

    One without a type is taken for what is expected.
    """
    fields = fields_of(request)
    coding = (text(fields, b"content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise errors.UnsupportedMediaType(
            f"Expected a body without `Content-Encoding`, got {coding[:80]!r}.",
            headers={"Accept-Encoding": "identity"},
        )
    media_type = (text(fields, b"content-type") or "").split(";")[0].strip().lower()
    if media_type and media_type not in types:
        raise errors.UnsupportedMediaType(
            f"Expected `Content-Type: {' or '.join(types)}`, got {media_type[:80]!r}.",
            headers=headers,
        )
