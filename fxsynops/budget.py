"""Limits on SynOps: see :mod:`fxsynops.cost.budget`."""

from fxsynops.cost.budget import Budget, Violation

__all__ = ["Budget", "Violation"]
