"""The registry of operations, filled: one file per kind of entry."""

from fxsynops.operations import gates, products, routing, synapses
from fxsynops.operations.register import register_routing, register_synapse
from fxsynops.operations.registry import (
    Call,
    Kind,
    Operation,
    Synapse,
    operations,
)

__all__ = [
    "Call",
    "Kind",
    "Operation",
    "Synapse",
    "gates",
    "operations",
    "products",
    "register_routing",
    "register_synapse",
    "routing",
    "synapses",
]
