"""The limit of writes: PostgreSQL's own pgbench with the statement that the service sends."""

import math
import re
from pathlib import Path
from typing import Final

from bench.load import Measured
from bench.processes import run
from credenza.embedded.binaries import MAJOR, installed

CLIENTS: Final = 32
RATE: Final = re.compile(r"tps = ([\d.]+)")

INSERT: Final = """
\\set n random(1, 9223372036854775807)
INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at, data)
SELECT 'default', :n::bigint::text, collections.incarnation, 1::bigint, now(), now(),
       '{body}'::text::jsonb
FROM collections
WHERE collections.collection = 'default' AND collections.settings IS NOT NULL
RETURNING documents.incarnation, documents.version, documents.created_at, documents.updated_at,
          documents.data::text AS data;
"""


def inserts(url: str, body: str, seconds: float, *, folder: Path) -> Measured:
    """Insert single rows by prepared statements for whole seconds; url is libpq's."""
    script = folder / "insert.sql"
    script.write_text(INSERT.format(body=body))
    said = run(
        str(installed() / f"pginstall{MAJOR}/bin/pgbench"),
        *("--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", "--jobs=1"),
        *(f"--time={math.ceil(seconds)}", f"--file={script}", url),
    )
    rate = RATE.search(said)
    if rate is None:
        raise SystemExit(f"bench: pgbench has failed\n{said}")
    return Measured(float(rate[1]))
