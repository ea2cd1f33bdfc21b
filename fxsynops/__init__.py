"""Count and bound the synaptic operations of spiking neural networks in PyTorch."""

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
from fxsynops.version import VERSION

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
