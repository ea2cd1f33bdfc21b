"""Pictures of results with matplotlib: see :mod:`fxsynops.reporting.plot`."""

from fxsynops.reporting.plot import fanout_map, rates, steps, synops, training

__all__ = ["fanout_map", "rates", "steps", "synops", "training"]
