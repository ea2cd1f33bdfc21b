"""Spiking neurons: what is known of each type.

registry.py     what is known, found by the type of a module; what users register
libraries/      one file per library, imported once the user has loaded the library itself
dynamics.py     how charge becomes spikes: the theorem behind the charge bound
updates.py      what one update of a neuron costs
"""

from fxsynops.neurons.registry import (
    Chosen,
    Neuron,
    describe,
    holds_more,
    is_librarys,
    register_spiking,
    registered,
    reset_states,
)
from fxsynops.neurons.updates import Update

__all__ = [
    "Chosen",
    "Neuron",
    "Update",
    "describe",
    "holds_more",
    "is_librarys",
    "register_spiking",
    "registered",
    "reset_states",
]
