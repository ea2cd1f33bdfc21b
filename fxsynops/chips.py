"""Chips that a network may have to fit: see :mod:`fxsynops.cost.chips` and ``cost.fit``."""

from fxsynops.cost.chips import Chip, EventCosts, chip, chips
from fxsynops.cost.fit import Check, Fit, fit
from fxsynops.cost.latency import Latency, LatencyRow

__all__ = ["Check", "Chip", "EventCosts", "Fit", "Latency", "LatencyRow", "chip", "chips", "fit"]
