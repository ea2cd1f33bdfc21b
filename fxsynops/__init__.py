"""Count and bound the synaptic operations of spiking neural networks in PyTorch."""

from __future__ import annotations

import importlib
import random
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fxsynops.version import VERSION

if TYPE_CHECKING:
    from fxsynops import losses, nn
    from fxsynops.analysis import Analysis, analyze
    from fxsynops.connectivity.results import Connection, DenseSynapse, FanOut
    from fxsynops.counter import SynOpsCounter, count
    from fxsynops.errors import (
        AuditError,
        CountError,
        FxSynopsError,
        InputError,
        SpecializationError,
        TraceError,
        UnsupportedOperationError,
    )
    from fxsynops.neurons import register_spiking
    from fxsynops.nir import from_nir
    from fxsynops.operations import register_routing, register_synapse
    from fxsynops.reporting.report import Report, load
    from fxsynops.results import Audit, Bound, Counts

__version__ = VERSION

__all__ = [
    "Analysis",
    "Audit",
    "AuditError",
    "Bound",
    "Connection",
    "CountError",
    "Counts",
    "DenseSynapse",
    "FanOut",
    "FxSynopsError",
    "InputError",
    "Report",
    "SpecializationError",
    "SynOpsCounter",
    "TraceError",
    "UnsupportedOperationError",
    "analyze",
    "count",
    "from_nir",
    "load",
    "losses",
    "nn",
    "register_routing",
    "register_spiking",
    "register_synapse",
]

# Where each name is; torch is imported with the first that is asked for.
_HOMES = {
    "analysis": "Analysis analyze",
    "connectivity.results": "Connection DenseSynapse FanOut",
    "counter": "SynOpsCounter count",
    "errors": "AuditError CountError FxSynopsError InputError SpecializationError TraceError "
    "UnsupportedOperationError",
    "neurons": "register_spiking",
    "nir": "from_nir",
    "operations": "register_routing register_synapse",
    "reporting.report": "Report load",
    "results": "Audit Bound Counts",
}
_HOME = {name: f"fxsynops.{home}" for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(_loaded(_HOME[name]), name)
    else:
        try:
            value = _loaded(f"fxsynops.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"fxsynops.{name}":
                raise
            raise AttributeError(f"module 'fxsynops' has no attribute {name!r}") from None
    globals()[name] = value
    return value


def _loaded(name: str) -> ModuleType:
    before = random.getstate()
    try:
        return importlib.import_module(name)
    finally:
        random.setstate(before)  # rich draws from it when it is loaded


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
