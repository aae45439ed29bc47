"""Numbers as Grafana writes them with a unit. Must not know what they are numbers of."""  # noqa: INP001 - beside the script that uses it

import math
from collections.abc import Mapping, Sequence
from typing import Final

Scale = Sequence[tuple[float, str]]

COUNTS: Final[Scale] = ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, ""))
BINARY: Final[Scale] = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
DECIMAL: Final[Scale] = ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1, "B/s"))
TIMES: Final[Scale] = (
    *((86400, "days"), (3600, "hours"), (60, "mins")),
    *((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
)
SUFFIXES: Final[Mapping[str, str]] = {"reqps": "req/s", "wps": "wr/s", "ops": "ops/s", "none": ""}
SCALES: Final[Mapping[str, Scale]] = {"bytes": BINARY, "Bps": DECIMAL, "s": TIMES}
DIGITS: Final = 3


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a number with its unit; three digits count where `decimals` says nothing."""
    if not math.isfinite(value):
        return str(value)
    if unit == "percentunit":
        return f"{_number(100 * value, decimals)}%"
    if scale := SCALES.get(unit):
        factor, name = _fitting(value, scale)
        return f"{_number(value / factor, decimals)} {name}"
    factor, name = _fitting(value, COUNTS) if unit != "none" else (1.0, "")
    return f"{_number(value / factor, decimals)}{name} {SUFFIXES[unit]}".strip()


def _fitting(value: float, scale: Scale) -> tuple[float, str]:
    """Return the largest step that the value reaches; for zero that of 1."""
    reached = [step for step in scale if abs(value) >= step[0]]
    ones = next(step for step in scale if step[0] == 1)
    return ones if value == 0 else (reached or [scale[-1]])[0]


def _number(value: float, decimals: int | None) -> str:
    if decimals is None:
        whole = math.floor(math.log10(abs(value))) + 1 if value else 1
        decimals = 0 if value == round(value) else min(max(DIGITS - whole, 0), 4)
    return f"{value:.{decimals}f}"
