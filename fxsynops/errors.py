"""Every error fxsynops raises: what happened, where in the user's code, and what to do about it."""

from __future__ import annotations


class FxSynopsError(Exception):
    """Base of all errors of this package."""


class InputError(FxSynopsError, ValueError):
    """The example, the input of a forward, or an option does not fit the model or its analysis."""


class TraceError(FxSynopsError, RuntimeError):
    """The model's forward cannot be recorded as a graph that replays faithfully."""


class UnsupportedOperationError(FxSynopsError, NotImplementedError):
    """Events reach a synapse through an operation that no rule covers."""


class AuditError(FxSynopsError, RuntimeError):
    """An analysis does not agree with what really happened when its example was run."""


class SpecializationError(FxSynopsError, RuntimeError):
    """A branch on data turned out otherwise than in the trace.

    Attributes:
        value: what was read, where Python has read a plain value; else None.
    """

    value: object = None


class CountError(FxSynopsError, ValueError):
    """A count was read that is not a number, or does not exist (yet)."""
