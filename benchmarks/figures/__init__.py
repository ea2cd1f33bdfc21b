"""Published figures, one source per file: each has ``rows()``."""
