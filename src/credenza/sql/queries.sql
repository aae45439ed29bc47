-- Every statement names its collection as a plain $1 and touches that collection alone, draws no
-- sequence, calls no volatile function in UPDATE or DO UPDATE, and takes arrays as text[]: then an
-- engine that shards by collection can route it, which a test holds
-- (docs/decisions/0011-one-collection-a-statement.md).
--
-- A version is decided while the row's lock is held: an insert takes the writer's clock in
-- microseconds, an overwrite greatest(documents.version + 1, clock). A deleted document stays as a
-- tombstone (data IS NULL) for a day, so that a re-created one gets a higher version. A row whose
-- incarnation is not its collection's belongs to a deleted collection: it counts as absent. A write
-- that waited while its collection was deleted and made again replaces nothing of the new one.
--
-- What changes what a list can show moves one of its collection's 16 change slots in the same
-- statement, after all of its documents, so that nobody waits for a document who holds a slot. A
-- slot's number only grows, by the same rule as a version. Statements that write nothing move none
-- (docs/decisions/0018-change-slots.md).

-- name: get_documents
SELECT collections.incarnation, documents.id, documents.version, documents.created_at,
       documents.updated_at, documents.data::text AS data
FROM collections
JOIN documents ON documents.collection = collections.collection
              AND documents.incarnation = collections.incarnation
WHERE collections.collection = $1 AND documents.collection = $1
  AND documents.id = ANY ($2::text[]);

-- name: insert_documents
-- $2 clock, $3 time of writing, $4 new ids, $5 texts, $6 the writer's slot.
WITH written AS (
    INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at, data)
    SELECT $1, lines.id, collections.incarnation, $2::bigint, $3::timestamptz, $3::timestamptz,
           lines.data::jsonb
    FROM collections, unnest($4::text[], $5::text[]) AS lines (id, data)
    WHERE collections.collection = $1 AND collections.settings IS NOT NULL
    RETURNING documents.incarnation, documents.id, documents.data::text AS data
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $6::smallint, $2::bigint FROM written HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT written.* FROM written;

-- name: put_documents
-- A group of puts, each decided by itself. $2 clock, $3 time of writing, $4 ids in order, $5 texts;
-- of each line: $6 true: something must be there, $7 versions of which one must be there, $8 versions
-- that must not be there, $9 true: nothing may be there, $10 must not have changed at or after;
-- $11 the writer's slot. Lists of versions are arrays as text.
--
-- It waits for nobody's document but one that another writer is just making, and for those in order,
-- before it locks any: so writers never wait in a circle. A document that another writer holds is
-- skipped, and so is what a deleted collection has left; of one that is neither written, refused nor
-- skipped nobody knows, and both kinds are then written alone.
WITH lines AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                         $10::text[])
        AS lines (id, data, must_exist, wanted, unwanted, must_be_absent, changed_before)
), inserted AS (
    INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at, data)
    SELECT $1, lines.id, collections.incarnation, $2::bigint, $3::timestamptz, $3::timestamptz,
           lines.data::jsonb
    FROM collections, lines
    WHERE collections.collection = $1 AND collections.settings IS NOT NULL
      AND NOT lines.must_exist::boolean
      AND NOT EXISTS (SELECT FROM documents
                      WHERE documents.collection = $1 AND documents.id = lines.id)
    ORDER BY lines.id COLLATE "C"
    ON CONFLICT (collection, id) DO NOTHING
    RETURNING documents.incarnation, documents.id, documents.version, documents.created_at,
              documents.updated_at, documents.data::text AS data
), held AS (
    SELECT documents.id FROM documents
    WHERE documents.collection = $1 AND documents.id = ANY ($4::text[])
      AND (SELECT count(*) FROM inserted) >= 0
    FOR UPDATE SKIP LOCKED
), replaced AS (
    UPDATE documents
    SET incarnation = collections.incarnation,
        version = greatest(documents.version + 1, $2::bigint),
        created_at = CASE
            WHEN documents.data IS NULL OR documents.incarnation <> collections.incarnation
            THEN $3::timestamptz ELSE documents.created_at END,
        updated_at = greatest(documents.updated_at, $3::timestamptz),
        data = lines.data::jsonb
    FROM collections, lines, held
    WHERE documents.collection = $1 AND documents.id = ANY ($4::text[])
      AND documents.id = held.id AND documents.id = lines.id
      AND collections.collection = $1 AND collections.settings IS NOT NULL
      AND CASE
          WHEN documents.incarnation > collections.incarnation THEN false
          WHEN documents.data IS NULL OR documents.incarnation < collections.incarnation
          THEN NOT lines.must_exist::boolean
          ELSE NOT lines.must_be_absent::boolean
              AND (lines.wanted IS NULL OR documents.version = ANY (lines.wanted::bigint[]))
              AND (lines.unwanted IS NULL OR documents.version <> ALL (lines.unwanted::bigint[]))
              AND (lines.changed_before IS NULL
                   OR documents.updated_at < lines.changed_before::timestamptz)
          END
    RETURNING documents.incarnation, documents.id, documents.version, documents.created_at,
              documents.updated_at, documents.data::text AS data
), written AS (
    SELECT inserted.* FROM inserted UNION ALL SELECT replaced.* FROM replaced
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $11::smallint, $2::bigint FROM written HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT written.*, 'written' AS outcome FROM written
UNION ALL
SELECT NULL, documents.id, NULL, NULL, NULL, NULL,
       CASE WHEN documents.id IN (SELECT held.id FROM held)
             AND documents.incarnation =
                 (SELECT collections.incarnation FROM collections
                  WHERE collections.collection = $1 AND collections.settings IS NOT NULL)
       THEN 'refused' ELSE 'skipped' END
FROM documents
WHERE documents.collection = $1 AND documents.id = ANY ($4::text[])
  AND documents.id NOT IN (SELECT written.id FROM written);

-- name: put_document
-- $6 versions that must not be there (If-None-Match), $7 true: nothing may be there
-- (If-None-Match: *), $8 must not have changed at or after (If-Unmodified-Since plus one second),
-- $9 the writer's slot.
WITH written AS (
    INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at, data)
    SELECT $1, $2::text, collections.incarnation, $3::bigint, $4::timestamptz, $4::timestamptz,
           $5::text::jsonb
    FROM collections
    WHERE collections.collection = $1 AND collections.settings IS NOT NULL
    ON CONFLICT (collection, id) DO UPDATE
    SET incarnation = excluded.incarnation,
        version = greatest(documents.version + 1, excluded.version),
        created_at = CASE
            WHEN documents.data IS NULL OR documents.incarnation <> excluded.incarnation
            THEN excluded.created_at ELSE documents.created_at END,
        updated_at = greatest(documents.updated_at, excluded.updated_at),
        data = excluded.data
    WHERE documents.incarnation < excluded.incarnation
       OR (documents.incarnation = excluded.incarnation
           AND (documents.data IS NULL
                OR (NOT $7::boolean
                    AND ($6::text[] IS NULL OR documents.version <> ALL ($6::text[]::bigint[]))
                    AND ($8::timestamptz IS NULL OR documents.updated_at < $8::timestamptz))))
    RETURNING documents.incarnation, documents.version, documents.created_at, documents.updated_at,
              documents.data::text AS data
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $9::smallint, $3::bigint FROM written HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT written.* FROM written;

-- name: replace_document
-- Replaces a document that exists. $6 versions of which one must be there (If-Match; NULL: any),
-- $7 versions that must not be there, $8 the writer's slot.
WITH written AS (
    UPDATE documents
    SET version = greatest(documents.version + 1, $3::bigint),
        updated_at = greatest(documents.updated_at, $4::timestamptz), data = $5::text::jsonb
    WHERE documents.collection = $1 AND documents.id = $2
      AND documents.data IS NOT NULL
      AND documents.incarnation =
          (SELECT collections.incarnation FROM collections WHERE collections.collection = $1)
      AND ($6::text[] IS NULL OR documents.version = ANY ($6::text[]::bigint[]))
      AND ($7::text[] IS NULL OR documents.version <> ALL ($7::text[]::bigint[]))
    RETURNING documents.incarnation, documents.version, documents.created_at, documents.updated_at,
              documents.data::text AS data
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $8::smallint, $3::bigint FROM written HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT written.* FROM written;

-- name: lock_document
-- The row stays locked until the transaction ends: what is decided from it stays true.
SELECT documents.incarnation, documents.version, documents.created_at, documents.updated_at,
       documents.data::text AS data
FROM documents
WHERE documents.collection = $1 AND documents.id = $2
  AND documents.data IS NOT NULL
  AND documents.incarnation =
      (SELECT collections.incarnation FROM collections WHERE collections.collection = $1)
FOR UPDATE;

-- name: delete_document
-- $5 versions of which one must be there (NULL: any), $6 versions that must not be there,
-- $7 must not have changed at or after, $8 the writer's slot.
WITH written AS (
    UPDATE documents
    SET version = greatest(documents.version + 1, $3::bigint),
        updated_at = greatest(documents.updated_at, $4::timestamptz), data = NULL
    WHERE documents.collection = $1 AND documents.id = $2
      AND documents.data IS NOT NULL
      AND documents.incarnation =
          (SELECT collections.incarnation FROM collections WHERE collections.collection = $1)
      AND ($5::text[] IS NULL OR documents.version = ANY ($5::text[]::bigint[]))
      AND ($6::text[] IS NULL OR documents.version <> ALL ($6::text[]::bigint[]))
      AND ($7::timestamptz IS NULL OR documents.updated_at < $7::timestamptz)
    RETURNING documents.incarnation, documents.version, documents.created_at, documents.updated_at,
              documents.data::text AS data
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $8::smallint, $3::bigint FROM written HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT written.* FROM written;

-- name: delete_documents
-- A group of deletions, as put_documents. $2 clock, $3 time of writing, $4 ids in order; of each
-- line: $5 versions of which one must be there, $6 versions that must not be there, $7 must not have
-- changed at or after; $8 the writer's slot. What is not returned is not there.
WITH held AS (
    SELECT documents.id FROM documents
    WHERE documents.collection = $1 AND documents.id = ANY ($4::text[])
    FOR UPDATE SKIP LOCKED
), written AS (
    UPDATE documents
    SET version = greatest(documents.version + 1, $2::bigint),
        updated_at = greatest(documents.updated_at, $3::timestamptz), data = NULL
    FROM collections, held,
         unnest($4::text[], $5::text[], $6::text[], $7::text[])
             AS lines (id, wanted, unwanted, changed_before)
    WHERE documents.collection = $1 AND documents.id = ANY ($4::text[])
      AND documents.id = held.id AND documents.id = lines.id
      AND documents.data IS NOT NULL
      AND collections.collection = $1 AND documents.incarnation = collections.incarnation
      AND (lines.wanted IS NULL OR documents.version = ANY (lines.wanted::bigint[]))
      AND (lines.unwanted IS NULL OR documents.version <> ALL (lines.unwanted::bigint[]))
      AND (lines.changed_before IS NULL
           OR documents.updated_at < lines.changed_before::timestamptz)
    RETURNING documents.incarnation, documents.id, documents.version, documents.created_at,
              documents.updated_at, documents.data::text AS data
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $8::smallint, $2::bigint FROM written HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT written.*, 'written' AS outcome FROM written
UNION ALL
SELECT NULL, documents.id, NULL, NULL, NULL, NULL,
       CASE WHEN documents.id IN (SELECT held.id FROM held)
             AND documents.incarnation =
                 (SELECT collections.incarnation FROM collections
                  WHERE collections.collection = $1 AND collections.settings IS NOT NULL)
       THEN 'refused' ELSE 'skipped' END
FROM documents
WHERE documents.collection = $1 AND documents.id = ANY ($4::text[])
  AND documents.id NOT IN (SELECT written.id FROM written);

-- name: import_documents
-- $2 clock, $3 time of writing, $4 ids in order (no deadlocks between imports), $5 texts,
-- $6 times of creation (none: the time of writing), each joined by U+001E, which is in none of them
-- (an array costs the driver a look at each element); $7 true: replace what is there, $8 how many,
-- $9 the writer's slot. Rows that exist and may not be replaced are not written. A new row's version
-- is the clock, that of a row that was there before is a higher one.
WITH stored AS (
    INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at, data)
    SELECT $1, lines.id, collections.incarnation, $2::bigint,
           coalesce(lines.created_at::timestamptz, $3::timestamptz), $3::timestamptz,
           lines.data::jsonb
    FROM collections,
         unnest(string_to_array($4::text, E'\x1e'), string_to_array($5::text, E'\x1e'),
                string_to_array($6::text, E'\x1e', '')) AS lines (id, data, created_at)
    WHERE collections.collection = $1 AND collections.settings IS NOT NULL
    ON CONFLICT (collection, id) DO UPDATE
    SET incarnation = excluded.incarnation,
        version = greatest(documents.version, excluded.version) + 1,
        created_at = excluded.created_at,
        updated_at = greatest(documents.updated_at, excluded.updated_at),
        data = excluded.data
    WHERE documents.incarnation < excluded.incarnation
       OR (documents.incarnation = excluded.incarnation
           AND (documents.data IS NULL OR $7::boolean))
    RETURNING documents.incarnation, documents.id, documents.version
), moved AS (
    INSERT INTO changes (collection, slot, n)
    SELECT $1, $9::smallint, $2::bigint FROM stored HAVING count(*) > 0
    ON CONFLICT (collection, slot) DO UPDATE SET n = greatest(changes.n + 1, excluded.n)
)
SELECT max(stored.incarnation) AS incarnation, count(*) AS written,
       array_agg(stored.id) FILTER (WHERE stored.version > $2::bigint) AS replaced,
       CASE WHEN count(*) < $8::bigint THEN array_agg(stored.id) END AS ids
FROM stored;

-- name: reap_tombstones
-- Deletes at most $3 tombstones that are older than $2.
DELETE FROM documents
WHERE documents.collection = $1
  AND documents.data IS NULL AND documents.updated_at < $2::timestamptz
  AND documents.id IN (
      SELECT documents.id FROM documents
      WHERE documents.collection = $1
        AND documents.data IS NULL AND documents.updated_at < $2::timestamptz
      LIMIT $3::bigint)
RETURNING documents.id;

-- name: purge_documents
-- Deletes at most $2 documents of the collection's former incarnations.
DELETE FROM documents
WHERE documents.collection = $1
  AND documents.incarnation <
      (SELECT collections.incarnation FROM collections WHERE collections.collection = $1)
  AND documents.id IN (
      SELECT documents.id FROM documents
      WHERE documents.collection = $1
        AND documents.incarnation <
            (SELECT collections.incarnation FROM collections WHERE collections.collection = $1)
      LIMIT $2::bigint)
RETURNING documents.id;

-- name: get_state
-- What the documents of a collection are, without any of them: two equal states are those of the
-- same documents. No row: there is no collection.
SELECT concat_ws(
           ' ', collections.incarnation,
           (SELECT string_agg(changes.slot || ':' || changes.n, ' ' ORDER BY changes.slot)
            FROM changes WHERE changes.collection = $1)) AS state
FROM collections
WHERE collections.collection = $1;

-- name: get_collection
SELECT collections.incarnation, collections.version, collections.created_at,
       collections.updated_at, collections.settings::text AS settings
FROM collections
WHERE collections.collection = $1;

-- name: create_collection
-- Makes the collection with default settings unless it is there; a deleted one comes back under a
-- new incarnation.
INSERT INTO collections (collection, incarnation, version, created_at, updated_at, settings, purged)
SELECT $1, $2::bigint, $2::bigint, $3::timestamptz, $3::timestamptz, '{}'::jsonb, true
ON CONFLICT (collection) DO UPDATE
SET incarnation = greatest(collections.version + 1, excluded.version),
    version = greatest(collections.version + 1, excluded.version),
    created_at = excluded.created_at,
    updated_at = greatest(collections.updated_at, excluded.updated_at),
    settings = excluded.settings
WHERE collections.settings IS NULL
RETURNING collections.version;

-- name: put_collection
-- $5 versions of which one must be there (If-Match; NULL: any), $6 versions that must not be there,
-- $7 must not have changed at or after.
UPDATE collections
SET version = greatest(collections.version + 1, $2::bigint),
    updated_at = greatest(collections.updated_at, $3::timestamptz), settings = $4::text::jsonb
WHERE collections.collection = $1 AND collections.settings IS NOT NULL
  AND ($5::text[] IS NULL OR collections.version = ANY ($5::text[]::bigint[]))
  AND ($6::text[] IS NULL OR collections.version <> ALL ($6::text[]::bigint[]))
  AND ($7::timestamptz IS NULL OR collections.updated_at < $7::timestamptz)
RETURNING collections.incarnation, collections.version, collections.created_at,
          collections.updated_at, collections.settings::text AS settings;

-- name: lock_collection
SELECT collections.incarnation, collections.version, collections.created_at,
       collections.updated_at, collections.settings::text AS settings
FROM collections
WHERE collections.collection = $1
FOR UPDATE;

-- name: delete_collection
-- Its documents are gone at once, because their incarnation is not the collection's any more; the
-- rows go in batches (purge_documents). $4 and $5 as $5 and $6 in put_collection; there is always an
-- If-Match, which wins over If-Unmodified-Since.
UPDATE collections
SET incarnation = greatest(collections.version + 1, $2::bigint),
    version = greatest(collections.version + 1, $2::bigint),
    updated_at = $3::timestamptz, settings = NULL, purged = false
WHERE collections.collection = $1 AND collections.settings IS NOT NULL
  AND ($4::text[] IS NULL OR collections.version = ANY ($4::text[]::bigint[]))
  AND ($5::text[] IS NULL OR collections.version <> ALL ($5::text[]::bigint[]))
RETURNING collections.incarnation, collections.version;

-- name: get_purged
SELECT collections.incarnation, collections.purged FROM collections
WHERE collections.collection = $1;

-- name: set_purged
UPDATE collections SET purged = true
WHERE collections.collection = $1 AND collections.incarnation = $2::bigint
RETURNING collections.collection;

-- name: add_to_catalog
-- The catalog lives under one key of its own, so that listing collections touches one shard.
INSERT INTO catalog (collection, name) VALUES ($1, $2)
ON CONFLICT (collection, name) DO NOTHING
RETURNING catalog.name;

-- name: list_catalog
SELECT catalog.name FROM catalog
WHERE catalog.collection = $1 AND catalog.name > $2
ORDER BY catalog.name
LIMIT $3::bigint;

-- name: add_secret
INSERT INTO secrets (collection, name, value) VALUES ($1, $2, $3)
ON CONFLICT (collection, name) DO NOTHING
RETURNING secrets.name;

-- name: get_secret
SELECT secrets.value FROM secrets WHERE secrets.collection = $1 AND secrets.name = $2;

-- name: get_revision
SELECT alembic_version.version_num FROM alembic_version;

-- name: list_indexed
-- The collections that ask for indexes, of all shards, as an index is made on all of them.
SELECT collections.collection, collections.settings::text AS settings FROM collections
WHERE collections.settings ? 'indexes';

-- name: list_indexes
-- The indexes that settings have asked for; one whose making was ended is not whole.
SELECT pg_class.relname::text AS name, pg_index.indisvalid AS is_whole
FROM pg_index JOIN pg_class ON pg_class.oid = pg_index.indexrelid
WHERE pg_index.indrelid = 'documents'::regclass AND starts_with(pg_class.relname, 'documents_by_');

-- name: create_index
CREATE INDEX CONCURRENTLY {name} ON documents ({columns}) WHERE {condition};

-- name: drop_index
DROP INDEX CONCURRENTLY IF EXISTS {name};

-- name: get_durability
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('statement_timeout') AS statement_timeout;

-- name: list_documents
-- A page of what is {found}, and the state of the same snapshot (get_state) in its first row, which
-- is there with no document when the page is empty. From where the data exceeds the byte limit on,
-- rows have none. The row that a page ends with has its position, times are in microseconds: both
-- for the driver's sake, to which arrays and times are dear. OFFSET keeps each text from being made
-- twice; `place` keeps the order. The number of rows is part of the text, because PostgreSQL else
-- plans each execution anew: it trusts a plan for any values only where it knows how few rows are
-- wanted.
SELECT page.id, page.version,
       (extract(epoch FROM page.created_at) * 1000000)::bigint AS created,
       (extract(epoch FROM page.updated_at) * 1000000)::bigint AS updated,
       CASE WHEN page.bytes - octet_length(page.data) < ${max_bytes}::bigint THEN page.data END
           AS data,
       CASE WHEN page.bytes >= ${max_bytes}::bigint OR page.place = {limit} - 1 THEN {position} END
           AS position,
       CASE WHEN page.place > 1 THEN NULL ELSE whole.state END AS state
FROM (
    SELECT collections.incarnation,
           concat_ws(
               ' ', collections.incarnation,
               (SELECT string_agg(changes.slot || ':' || changes.n, ' ' ORDER BY changes.slot)
                FROM changes WHERE changes.collection = $1)) AS state
    FROM collections
    WHERE collections.collection = $1
) AS whole
LEFT JOIN LATERAL (
    SELECT texts.*, row_number() OVER so_far AS place,
           sum(octet_length(texts.data)) OVER so_far AS bytes
    FROM (
        SELECT found.*, found.selected::text AS data
        FROM ({found}) AS found
        OFFSET 0
    ) AS texts
    WINDOW so_far AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING)
) AS page ON true
ORDER BY page.place;

-- name: found_in_order
-- Documents read along the order until the page is full, or all sorted. The limit stands right on
-- the sort, so that this keeps no more rows than the page has.
SELECT documents.id, documents.version, documents.created_at, documents.updated_at,
       {select} AS selected, {keys}
FROM documents
WHERE documents.collection = $1
  AND documents.data IS NOT NULL
  AND documents.incarnation = whole.incarnation
  AND {among} AND {where}
ORDER BY {order}
LIMIT {limit}

-- name: found_by_index
-- Documents that an index finds by the filter, sorted. Where there are more than a few, they are
-- read along the order as above, which then soon fills the page; CASE keeps all indexes away from the
-- filter there, and has PostgreSQL expect that many match. An inequality names the order of its index:
-- PostgreSQL, which knows nothing of the value, then takes that one. PostgreSQL alone would
-- choose one of the two by a guess at how many match: it tries the filter on the hundred documents
-- that it has sampled, and takes a value that is among them for one in a hundred (matchingsel).
WITH few AS MATERIALIZED (
    SELECT documents.*
    FROM documents
    WHERE documents.collection = $1
      AND documents.data IS NOT NULL
      AND documents.incarnation = whole.incarnation
      AND {among} AND {where}
    {nearest}
    LIMIT {few} + 1
)
SELECT documents.id, documents.version, documents.created_at, documents.updated_at,
       {select} AS selected, {keys}
FROM few AS documents
WHERE (SELECT count(*) FROM few) <= {few}
UNION ALL
(SELECT documents.id, documents.version, documents.created_at, documents.updated_at,
        {select} AS selected, {keys}
 FROM documents
 WHERE (SELECT count(*) FROM few) > {few}
   AND documents.collection = $1
   AND documents.data IS NOT NULL
   AND documents.incarnation = whole.incarnation
   AND {among} AND CASE WHEN {where} THEN true END
 ORDER BY {order}
 LIMIT {limit})
ORDER BY {order}
LIMIT {limit}

-- name: open_export
-- All documents in order, to be read bit by bit in the transaction of this statement. `data` is NULL
-- where it is longer than {max_bytes}: these are read one by one (read_large), so that a number of
-- rows bounds their bytes. OFFSET keeps each text from being made twice; the order is named on each
-- floor, so that nothing is sorted twice.
DECLARE export NO SCROLL CURSOR FOR
SELECT page.id, page.version,
       (extract(epoch FROM page.created_at) * 1000000)::bigint AS created,
       (extract(epoch FROM page.updated_at) * 1000000)::bigint AS updated,
       CASE WHEN octet_length(page.data) <= {max_bytes} THEN page.data END AS data
FROM (
    SELECT found.*, found.selected::text AS data
    FROM (
        SELECT documents.id, documents.version, documents.created_at, documents.updated_at,
               {select} AS selected, {keys}
        FROM documents
        WHERE documents.collection = $1
          AND documents.data IS NOT NULL
          AND documents.incarnation =
              (SELECT collections.incarnation FROM collections WHERE collections.collection = $1)
          AND {among} AND {where}
        ORDER BY {order}
    ) AS found
    ORDER BY {order}
    OFFSET 0
) AS page
ORDER BY {order};

-- name: read_export
FETCH FORWARD {rows} FROM export;

-- name: read_large
SELECT {select}::text AS data
FROM documents
WHERE documents.collection = $1 AND {where};
