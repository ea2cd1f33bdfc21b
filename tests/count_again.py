"""Counts digits in a process that may die in the middle, and goes on when it is started again.

    python -m tests.count_again FILE [BATCH IN WHICH IT DIES]

Prints what it has counted in the end, and what it was told in the beginning.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

import fxsynops
from fxsynops.cli.demo import digits
from fxsynops.logging import keep
from tests.count_digits import BATCH, IMAGES, network


def main() -> None:
    file, dies = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
    model, images = network(), (digits(IMAGES) * 3).round()
    counter = fxsynops.SynOpsCounter(model, images[:1])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        keep(counter, file)
    for begin in range(counter.counts.samples, len(images), BATCH):
        if dies is not None and begin == dies * BATCH:
            os._exit(1)
        counter(images[begin : begin + BATCH])
    told = [str(warning.message) for warning in said]
    print(json.dumps([counter.counts.total, counter.counts.samples, told]))


if __name__ == "__main__":
    main()
