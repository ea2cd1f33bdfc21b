"""Small models, built the way that published repositories build theirs: one class each."""

from tests.constructions import (
    conversion,
    convolutional,
    detection,
    generative,
    graphs,
    libraries,
    neurons,
    recurrent,
    transformers,
)
from tests.constructions.parts import CONSTRUCTIONS, OPEN, REFUSED

__all__ = [
    "CONSTRUCTIONS",
    "OPEN",
    "REFUSED",
    "conversion",
    "convolutional",
    "detection",
    "generative",
    "graphs",
    "libraries",
    "neurons",
    "recurrent",
    "transformers",
]
