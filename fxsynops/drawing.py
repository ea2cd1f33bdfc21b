"""The graph of an analysis as a drawing: see :mod:`fxsynops.reporting.drawing`."""

from fxsynops.reporting.drawing import draw, to_graphml, to_html, to_mermaid, to_svg

__all__ = ["draw", "to_graphml", "to_html", "to_mermaid", "to_svg"]
