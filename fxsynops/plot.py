"""Pictures of results with matplotlib: see :mod:`fxsynops.reporting.plot`."""

from fxsynops.reporting.plot import fanout_map, rates, synops, training

__all__ = ["fanout_map", "rates", "synops", "training"]
