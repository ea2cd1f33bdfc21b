"""Settings that models in ``tests/test_trust.py`` read."""

STEPS = 2


class Defaults:
    """Of a class."""

    steps = 2
