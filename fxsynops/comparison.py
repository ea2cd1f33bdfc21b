"""Two reports side by side: see :mod:`fxsynops.reporting.comparison`."""

from fxsynops.reporting.comparison import compare

__all__ = ["compare"]
