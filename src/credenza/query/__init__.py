"""Queries: from the text of a request to the fragments of one SQL statement.

`parse` reads URL parameters into a tree, `compile` writes a tree as SQL whose values are all bound,
`cursors` signs the place where a page ended. Must not know HTTP, and sends nothing.

    wanted = query.parse(pairs)
    position = cursors.read(wanted, collection)
    statement = query.to_sql(wanted, position, query.indexes(collection, names))
    rows, more, _ = await snapshots.page(collection, statement, wanted.limit, max_bytes)
    cursor = cursors.write(wanted, collection, rows[-1]["position"]) if more else None
"""

from credenza.query.compile import Statement, may_use_indexes, to_sql
from credenza.query.cursors import Cursors
from credenza.query.keys import NO_INDEXES, Indexes, definitions, indexes
from credenza.query.parse import parse
from credenza.query.tree import Position, Query

__all__ = [
    "NO_INDEXES",
    "Cursors",
    "Indexes",
    "Position",
    "Query",
    "Statement",
    "definitions",
    "indexes",
    "may_use_indexes",
    "parse",
    "to_sql",
]
