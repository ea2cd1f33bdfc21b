"""Spiking neurons: the registry, and one file for each library that knows its own.

No library is imported here; its file is, once the user has loaded the library itself.
"""

from fxsynops.neurons.registry import (
    Neuron,
    describe,
    register_spiking,
    registered,
    reset_states,
)

__all__ = ["Neuron", "describe", "register_spiking", "registered", "reset_states"]
