"""One published figure beside ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A published figure.

    Attributes:
        name: of the figure.
        theirs: as it was printed.
        alike: ours, by their definition; equal if it prints the same.
        exact: ours, as fxsynops counts; None if that is the same thing.
        source: where it was published.
        why: how ``exact`` (or ``alike``) differs, in their units.
        form: how they have printed it.
        within: what the rounding of published rates can make of it.
    """

    name: str
    theirs: str
    alike: float
    source: str
    exact: float | None = None
    why: str = ""
    form: str = ",.0f"
    within: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether ours, by their definition, prints the same."""
        printed = float(self.theirs.replace(",", ""))
        return (
            format(self.alike, self.form) == self.theirs or abs(self.alike - printed) <= self.within
        )
