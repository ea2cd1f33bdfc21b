"""What is known about each operation: one entry, with everything that any stage wants to know.

signatures.py    a call's arguments by torch's own names, however it was spelled
call.py          one recorded call
operation.py     what an entry holds; registry.py finds it
elementwise, movement, windows, writes, gates, makers, synapses, products
the entries, by family
value_range.py   what a tensor can be, and the rules that many entries share
transpose.py     fan-out maps, and how they move backwards
register.py      what users add
"""

from fxsynops.operations import (
    elementwise,
    gates,
    makers,
    movement,
    products,
    synapses,
    windows,
    writes,
)
from fxsynops.operations.call import Call
from fxsynops.operations.operation import Kind, Operation, Synapse
from fxsynops.operations.register import register_routing, register_synapse
from fxsynops.operations.registry import operations

__all__ = [
    "Call",
    "Kind",
    "Operation",
    "Synapse",
    "elementwise",
    "gates",
    "makers",
    "movement",
    "operations",
    "products",
    "register_routing",
    "register_synapse",
    "synapses",
    "windows",
    "writes",
]
