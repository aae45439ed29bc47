"""A collection with its settings: out of a row or the cache, into the cache and what clients get.

Must not know how any of them is reached.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import cast

import msgspec

from credenza import query, wire
from credenza.cache import Entry
from credenza.rows import CollectionRow


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection that exists."""

    name: str
    incarnation: int
    version: int
    created_at: datetime
    updated_at: datetime
    settings: wire.CollectionSettings
    indexes: query.Indexes

    @property
    def etag(self) -> str:
        """The strong entity-tag (RFC 9110 §8.8.3)."""
        return f'"{self.version}"'

    @property
    def last_modified(self) -> str:
        """The time of the last change as an HTTP date."""
        return wire.http_date(self.updated_at)

    @property
    def model(self) -> wire.Collection:
        """Its representation."""
        return wire.Collection(
            name=self.name,
            version=self.version,
            created_at=self.created_at,
            updated_at=self.updated_at,
            settings=self.settings,
        )


def from_row(name: str, row: CollectionRow) -> Collection:
    """Return the collection of a row that is there."""
    settings = wire.CollectionSettings.model_validate_json(row.settings or "{}")
    return Collection(
        name,
        row.incarnation,
        row.version,
        row.created_at,
        row.updated_at,
        settings,
        query.indexes(name, settings.indexes),
    )


def to_entry(row: CollectionRow) -> Entry:
    """Return what the cache keeps of a collection: its row, or a tombstone."""
    if row.settings is None:
        return Entry(row.version, None)
    return Entry(row.version, msgspec.json.encode(row))


def from_entry(name: str, entry: Entry) -> Collection | None:
    """Return a cached collection, ready to use; an entry is decoded once."""
    if entry.body is None:
        return None
    if entry.note is None:
        entry.note = from_row(name, msgspec.json.decode(entry.body, type=CollectionRow))
    return cast("Collection", entry.note)
