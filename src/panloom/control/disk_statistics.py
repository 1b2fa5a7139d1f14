"""What a disk has done, as it is shown: JSON types, every number exact but for the latencies.

Of those the storage process knows how many took up to 2, 4, 8 … nanoseconds, so what is told here is what half of them,
and 99 of 100, took at most; the truth is between half of it and it.
"""

from typing import Any

import msgspec

from panloom.storage.statistics import Totals, quantile_seconds

SHARES = {"median": 0.5, "p99": 0.99}


def statistics_row(totals: Totals, since: float | None) -> dict[str, Any]:
    """Return it with ``read_median_seconds`` and the like, None where nothing was done, in place of the histograms.

    ``since``: from when on it was counted, wall clock; None: nobody knows.
    """
    row: dict[str, Any] = msgspec.to_builtins(totals)
    histograms = {what: tuple(row.pop(f"{what}_latency")) for what in ("read", "write")}
    for what, histogram in histograms.items():
        for name, share in SHARES.items():
            row[f"{what}_{name}_seconds"] = quantile_seconds(histogram, share)
    return row | {"since": since}
