"""Budgets: limits on SynOps, as a chip sets them, and what breaks them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxsynops.errors import InputError
from fxsynops.reporting.files import read_toml


@dataclass(frozen=True)
class Violation:
    """A limit that is not kept.

    Attributes:
        name: the layer, or "total".
        value: what there is, in ``unit``.
        limit: what the budget allows.
        unit: "SynOps" (per sample) or "SynOps/s".
        of: of what these are, if they are per second: "the peak step", or "the mean step".
    """

    name: str
    value: float
    limit: float
    unit: str
    of: str = ""

    def __str__(self) -> str:
        of = f" in {self.of}" if self.of else ""
        return f"{self.name}: {self.value:,.0f} {self.unit}{of} > {self.limit:,.0f}"


@dataclass(frozen=True)
class Budget:
    """Limits, as the arguments of ``check`` name them; a TOML file has the same keys.

    Attributes:
        max_synops: per sample, over the whole window.
        max_synops_per_second: of one sample at a time: in the step with the most, where steps were
            kept apart, else the mean over the window.
        per_layer: SynOps per sample, by the name of a synapse.

    Raises:
        InputError: there is no limit, or one is negative or no number.
    """

    max_synops: float | None = None
    max_synops_per_second: float | None = None
    per_layer: dict[str, float] | None = None

    def __post_init__(self) -> None:
        stated = dict(self.per_layer or {})
        for name in ("max_synops", "max_synops_per_second"):
            if getattr(self, name) is not None:
                stated[name] = getattr(self, name)
        if not stated:
            raise InputError(
                "a budget needs a limit: max_synops=, max_synops_per_second=, per_layer=."
            )
        for name, limit in stated.items():
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or not limit >= 0:
                raise InputError(
                    f"the limit of {name} must be a number and not negative: {limit!r}."
                )

    @classmethod
    def load(cls, path: str | Path) -> Budget:
        """Read a TOML file.

        Raises:
            InputError: the file cannot be read, or holds something else.

        Example (``budget.toml``)::

            max_synops = 2e6
            max_synops_per_second = 1e9

            [per_layer]
            conv1 = 500_000
            layer1.0.conv2 = 1e6
        """
        content = read_toml(path, "the budget")
        known = ("max_synops", "max_synops_per_second", "per_layer")
        if unknown := set(content) - set(known):
            raise InputError(
                f"the budget '{path}' has {sorted(unknown)}; it may have {', '.join(known)}."
            )
        layers = content.pop("per_layer", None)
        if layers is not None and not isinstance(layers, dict):
            raise InputError(f"the budget '{path}' needs a table [per_layer], one limit per line.")
        return cls(**content, per_layer=layers and dict(_dotted(layers, "")))

    def violations(
        self, costs: Iterable[tuple[str, float]], window: float, peak: float | None = None
    ) -> tuple[Violation, ...]:
        """The limits that are not kept, those of the total first.

        Args:
            costs: of every connection, its synapse and its SynOps per sample.
            window: its length in milliseconds.
            peak: the most SynOps per second in any step, if it is known.

        Raises:
            InputError: a layer does not exist.
        """
        limits, layers = self.per_layer or {}, dict[str, float]()
        for name, synops in costs:
            layers[name] = layers.get(name, 0.0) + synops
        if missing := set(limits) - set(layers):
            raise InputError(
                f"the budget names {sorted(missing)}, which are no synapses of this model. "
                f"Its synapses are {sorted(layers)}."
            )
        total = math.fsum(layers.values())
        found = [
            Violation("total", total, _number(self.max_synops), "SynOps"),
            Violation(
                "total",
                total / (window / 1000) if peak is None else peak,
                _number(self.max_synops_per_second),
                "SynOps/s",
                "the mean step" if peak is None else "the peak step",
            ),
        ]
        found += [Violation(name, layers[name], limit, "SynOps") for name, limit in limits.items()]
        return tuple(violation for violation in found if violation.value > violation.limit)


class Budgeted:
    """A result that can be held to a budget."""

    def costs(self) -> tuple[list[tuple[str, float]], float]:
        """Of every connection, its synapse and its SynOps per sample; and the window's length."""
        raise NotImplementedError

    def peak_per_second(self) -> float | None:
        """The most SynOps per second in any step, if that is known."""
        return None

    def check(
        self,
        max_synops: float | None = None,
        *,
        max_synops_per_second: float | None = None,
        per_layer: dict[str, float] | None = None,
    ) -> tuple[Violation, ...]:
        """The limits of a budget that are not kept; see :class:`Budget`.

        Raises:
            InputError: there is no limit, or a layer does not exist.
        """
        budget = Budget(max_synops, max_synops_per_second, per_layer)
        return budget.violations(*self.costs(), self.peak_per_second())


def _number(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _dotted(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Limits by name; TOML reads ``layer1.0.conv2 = 9`` as a table in a table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
