"""Networks for Speck, with what sinabs 3.1.3 says of them: literals that its own code gave.

Memory is that of ``memory_summary()``, cores are those of ``find_chip_layers``, and a network is
accepted if ``get_valid_mapping`` finds an assignment. That does not look at all limits of a
chip's overview; ``documented`` names those that are broken.
"""

# ruff: noqa: E501
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ChipCase:
    """A network, layer by layer, and what sinabs says."""

    name: str
    input: tuple[int, int, int]
    layers: list[dict[str, Any]]
    accepted: bool
    memory: list[list[int]] | None = None
    cores: list[list[int]] | None = None
    documented: list[str] = field(default_factory=list)
    chip: str = "speck2f"


ANY = [0, 1, 2, 3, 4, 5, 6, 7, 8]

# fmt: off
CASES = [
    ChipCase(
        "docs_basics", (1, 28, 28),
        [
            {"conv": (1, 20), "kernel": 5, "pools": [("avg", 2)]},
            {"conv": (20, 32), "kernel": 5, "pools": [("avg", 2)]},
            {"conv": (32, 128), "kernel": 3, "pools": [("avg", 2)]},
            {"linear": (128, 500)},
            {"linear": (500, 10)},
        ],
        True,
        [[1024, 20480, 65536, 65536, 8000], [20480, 2048, 512, 500, 10], [0, 0, 0, 0, 0]],
        cores=[[0, 1, 2, 3, 4], [3, 4, 5, 6], [5, 6], [5, 6], ANY],
    ),
    ChipCase(
        "sinabs_large_net", (2, 128, 128),
        [
            {"conv": (2, 16), "kernel": 2, "stride": 2},
            {"conv": (16, 16), "kernel": 3, "padding": 1, "pools": [("avg", 2)]},
            {"conv": (16, 32), "kernel": 3, "padding": 1, "pools": [("avg", 2)]},
            {"conv": (32, 32), "kernel": 3, "padding": 1, "pools": [("avg", 2)]},
            {"conv": (32, 64), "kernel": 3, "padding": 1, "pools": [("avg", 2)]},
            {"conv": (64, 64), "kernel": 3, "padding": 1, "pools": [("avg", 2)]},
            {"conv": (64, 256), "kernel": 2},
            {"conv": (256, 128), "kernel": 1},
            {"conv": (128, 1), "kernel": 1},
        ],
        True,
        [[128, 4096, 8192, 16384, 32768, 65536, 65536, 32768, 128], [65536, 65536, 32768, 8192, 4096, 1024, 256, 128, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0]],
        cores=[[0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4], ANY, [3, 4, 5, 6], [5, 6], [5, 6], [3, 4, 5, 6], ANY],
    ),
    ChipCase(
        "docs_overview_example", (16, 64, 64),
        [
            {"conv": (16, 32), "kernel": 3, "padding": 1},
        ],
        False,
        [[8192], [131072], [0]],
        cores=[[]],
    ),
    ChipCase(
        "neuron_at_limit", (2, 64, 64),
        [
            {"conv": (2, 16), "kernel": 3, "padding": 1},
        ],
        True,
        [[512], [65536], [0]],
        cores=[[0, 1, 2]],
    ),
    ChipCase(
        "neuron_one_channel_over", (2, 64, 64),
        [
            {"conv": (2, 17), "kernel": 3, "padding": 1},
        ],
        False,
        [[1024], [69632], [0]],
        cores=[[]],
    ),
    ChipCase(
        "neuron_rounding_33", (1, 33, 33),
        [
            {"conv": (1, 9), "kernel": 1},
        ],
        True,
        [[16], [36864], [0]],
        cores=[[0, 1, 2]],
    ),
    ChipCase(
        "neuron_rounding_decides", (1, 33, 33),
        [
            {"conv": (1, 16), "kernel": 1},
        ],
        True,
        [[16], [65536], [0]],
        cores=[[0, 1, 2]],
    ),
    ChipCase(
        "neuron_rounding_rejects", (1, 33, 33),
        [
            {"conv": (1, 17), "kernel": 1},
        ],
        False,
        [[32], [69632], [0]],
        cores=[[]],
    ),
    ChipCase(
        "kernel_at_limit", (64, 8, 8),
        [
            {"conv": (64, 64), "kernel": 3, "padding": 1},
        ],
        True,
        [[65536], [4096], [0]],
        cores=[[5, 6]],
    ),
    ChipCase(
        "kernel_65_features", (64, 8, 8),
        [
            {"conv": (64, 65), "kernel": 3, "padding": 1},
        ],
        False,
        [[131072], [4160], [0]],
        cores=[[]],
    ),
    ChipCase(
        "kernel_rounding_5x5_33", (8, 16, 16),
        [
            {"conv": (8, 33), "kernel": 5, "padding": 2},
        ],
        True,
        [[16384], [8448], [0]],
        cores=[ANY],
    ),
    ChipCase(
        "both_at_limit_0", (16, 32, 32),
        [
            {"conv": (16, 64), "kernel": 3, "padding": 1},
        ],
        True,
        [[16384], [65536], [0]],
        cores=[[0, 1, 2]],
    ),
    ChipCase(
        "tension_no_core", (32, 32, 32),
        [
            {"conv": (32, 64), "kernel": 3, "padding": 1},
        ],
        False,
        [[32768], [65536], [0]],
        cores=[[]],
    ),
    ChipCase(
        "tension_cores_3_4", (64, 32, 32),
        [
            {"conv": (64, 32), "kernel": 3, "padding": 1},
        ],
        True,
        [[32768], [32768], [0]],
        cores=[[3, 4]],
    ),
    ChipCase(
        "three_big_neuron_layers", (1, 64, 64),
        [
            {"conv": (1, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
        ],
        True,
        [[256, 4096, 4096], [65536, 65536, 65536], [0, 0, 0]],
        cores=[[0, 1, 2], [0, 1, 2], [0, 1, 2]],
    ),
    ChipCase(
        "four_big_neuron_layers", (1, 64, 64),
        [
            {"conv": (1, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
        ],
        False,
        [[256, 4096, 4096, 4096], [65536, 65536, 65536, 65536], [0, 0, 0, 0]],
        cores=[[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]],
    ),
    ChipCase(
        "three_big_kernels", (64, 8, 8),
        [
            {"conv": (64, 64), "kernel": 3, "padding": 1},
            {"conv": (64, 64), "kernel": 3, "padding": 1},
            {"conv": (64, 64), "kernel": 3, "padding": 1},
        ],
        False,
        [[65536, 65536, 65536], [4096, 4096, 4096], [0, 0, 0]],
        cores=[[5, 6], [5, 6], [5, 6]],
    ),
    ChipCase(
        "matching_not_greedy", (2, 64, 64),
        [
            {"conv": (2, 1), "kernel": 1},
            {"conv": (1, 1), "kernel": 1},
            {"conv": (1, 1), "kernel": 1},
            {"conv": (1, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
            {"conv": (16, 16), "kernel": 3, "padding": 1},
        ],
        True,
        [[2, 1, 1, 256, 4096, 4096], [4096, 4096, 4096, 65536, 65536, 65536], [0, 0, 0, 0, 0, 0]],
        cores=[ANY, ANY, ANY, [0, 1, 2], [0, 1, 2], [0, 1, 2]],
    ),
    ChipCase(
        "nine_small", (1, 8, 8),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
        ],
        True,
        [[64, 256, 256, 256, 256, 256, 256, 256, 256], [256, 256, 256, 256, 256, 256, 256, 256, 256], [0, 0, 0, 0, 0, 0, 0, 0, 0]],
        cores=[ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY],
    ),
    ChipCase(
        "ten_small", (1, 8, 8),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
        ],
        False,
        [[64, 256, 256, 256, 256, 256, 256, 256, 256, 256], [256, 256, 256, 256, 256, 256, 256, 256, 256, 256], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
        cores=[ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY],
    ),
    ChipCase(
        "bias_1024", (1, 4, 4),
        [
            {"linear": (16, 1024), "bias": True},
        ],
        True,
        [[16384], [1024], [1024]],
        cores=[ANY],
    ),
    ChipCase(
        "bias_1025", (1, 1, 1),
        [
            {"conv": (1, 1025), "kernel": 1, "bias": True},
        ],
        False,
        [[2048], [1025], [1025]],
        cores=[[]],
        documented=["channels"],
    ),
    ChipCase(
        "channels_1025_no_bias", (1, 1, 1),
        [
            {"conv": (1, 1025), "kernel": 1},
        ],
        True,
        [[2048], [1025], [0]],
        cores=[ANY],
        documented=["channels"],
    ),
    ChipCase(
        "batch_norm_adds_bias", (2, 16, 16),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "batch_norm": True},
        ],
        True,
        [[256], [2048], [8]],
        cores=[ANY],
    ),
    ChipCase(
        "stride_2", (2, 28, 28),
        [
            {"conv": (2, 8), "kernel": 3, "stride": 2, "padding": 1},
        ],
        True,
        [[256], [2048], [0]],
        cores=[ANY],
    ),
    ChipCase(
        "stride_3", (2, 27, 27),
        [
            {"conv": (2, 8), "kernel": 3, "stride": 3},
        ],
        True,
        [[256], [2048], [0]],
        cores=[ANY],
        documented=["stride"],
    ),
    ChipCase(
        "stride_3_1", (2, 27, 27),
        [
            {"conv": (2, 8), "kernel": 3, "stride": (3, 1)},
        ],
        True,
        [[256], [4096], [0]],
        cores=[ANY],
        documented=["stride"],
    ),
    ChipCase(
        "kernel_17", (1, 20, 20),
        [
            {"conv": (1, 4), "kernel": 17},
        ],
        True,
        [[2048], [64], [0]],
        cores=[ANY],
        documented=["kernel"],
    ),
    ChipCase(
        "padding_8", (1, 20, 20),
        [
            {"conv": (1, 4), "kernel": 17, "padding": 8},
        ],
        True,
        [[2048], [4096], [0]],
        cores=[ANY],
        documented=["kernel", "padding"],
    ),
    ChipCase(
        "pool_3", (2, 24, 24),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("sum", 3)]},
            {"conv": (8, 4), "kernel": 3},
        ],
        True,
        [[256, 512], [8192, 256], [0, 0]],
        cores=[ANY, ANY],
        documented=["pool"],
    ),
    ChipCase(
        "pool_2_then_2", (2, 24, 24),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("sum", 2), ("avg", 2)]},
            {"conv": (8, 4), "kernel": 3},
        ],
        True,
        [[256, 512], [8192, 64], [0, 0]],
        cores=[ANY, ANY],
    ),
    ChipCase(
        "pool_2_then_4", (2, 32, 32),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("sum", 2), ("sum", 4)]},
            {"conv": (8, 4), "kernel": 3},
        ],
        True,
        [[256, 512], [8192, 16], [0, 0]],
        cores=[ANY, ANY],
        documented=["pool"],
    ),
    ChipCase(
        "pool_floor", (2, 13, 13),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("sum", 2)]},
            {"conv": (8, 4), "kernel": 3},
        ],
        True,
        [[256, 512], [2048, 64], [0, 0]],
        cores=[ANY, ANY],
    ),
    ChipCase(
        "pool_not_square", (2, 16, 16),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("sum", (2, 1))]},
            {"conv": (8, 4), "kernel": 3},
        ],
        False,
    ),
    ChipCase(
        "pool_stride", (2, 16, 16),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("avg", 3, 2)]},
            {"conv": (8, 4), "kernel": 3},
        ],
        False,
    ),
    ChipCase(
        "pool_max", (2, 16, 16),
        [
            {"conv": (2, 8), "kernel": 3, "padding": 1, "pools": [("max", 2)]},
            {"conv": (8, 4), "kernel": 3},
        ],
        False,
    ),
    ChipCase(
        "output_128", (2, 128, 128),
        [
            {"conv": (2, 1), "kernel": 3, "padding": 1},
        ],
        True,
        [[32], [16384], [0]],
        cores=[ANY],
        documented=["output size"],
    ),
    ChipCase(
        "input_256", (1, 256, 256),
        [
            {"conv": (1, 4), "kernel": 4, "stride": 4},
        ],
        True,
        [[64], [16384], [0]],
        cores=[ANY],
        documented=["input size"],
    ),
    ChipCase(
        "kernel_not_square", (2, 16, 16),
        [
            {"conv": (2, 8), "kernel": (3, 1)},
        ],
        False,
    ),
    ChipCase(
        "input_not_square", (2, 16, 32),
        [
            {"conv": (2, 4), "kernel": 2, "stride": 2, "pools": [("avg", 2)]},
            {"conv": (4, 2), "kernel": 1},
        ],
        True,
        [[32, 8], [512, 64], [0, 0]],
        cores=[ANY, ANY],
    ),
    ChipCase(
        "linear_kernel", (1, 10, 10),
        [
            {"conv": (1, 8), "kernel": 3, "padding": 1, "pools": [("sum", 2)]},
            {"linear": (200, 10)},
        ],
        True,
        [[128, 4096], [2048, 10], [0, 0]],
        cores=[ANY, ANY],
    ),
    ChipCase(
        "linear_not_square", (1, 4, 8),
        [
            {"linear": (32, 10)},
        ],
        False,
    ),
    ChipCase(
        "linear_20", (1, 20, 20),
        [
            {"linear": (400, 10)},
        ],
        True,
        [[8192], [10], [0]],
        cores=[ANY],
        documented=["kernel"],
    ),
    ChipCase(
        "linear_512_10", (2, 16, 16),
        [
            {"linear": (512, 10)},
        ],
        True,
        [[8192], [10], [0]],
        cores=[ANY],
    ),
    ChipCase(
        "readout_37", (4, 4, 4),
        [
            {"linear": (64, 37)},
        ],
        True,
        [[4096], [37], [0]],
        cores=[ANY],
    ),
    ChipCase(
        "floor_33_stride_2", (1, 33, 33),
        [
            {"conv": (1, 64), "kernel": 2, "stride": 2},
        ],
        True,
        [[256], [16384], [0]],
        cores=[ANY],
    ),
    ChipCase(
        "floor_33_stride_2_65", (1, 33, 33),
        [
            {"conv": (1, 65), "kernel": 2, "stride": 2},
        ],
        True,
        [[512], [16640], [0]],
        cores=[[0, 1, 2, 3, 4]],
    ),
    ChipCase(
        "depthwise", (8, 16, 16),
        [
            {"conv": (8, 8), "kernel": 3, "padding": 1, "groups": 8},
        ],
        True,
        [[128], [2048], [0]],
        cores=[ANY],
        documented=["groups"],
    ),
    ChipCase(
        "dilation_2", (1, 20, 20),
        [
            {"conv": (1, 8), "kernel": 3, "dilation": 2},
        ],
        True,
        [[128], [2048], [0]],
        cores=[ANY],
        documented=["dilation"],
    ),
    ChipCase(
        "residual", (1, 16, 16),
        [
            {"conv": (1, 2), "kernel": 1},
            {"conv": (2, 2), "kernel": 1},
            {"conv": (2, 4), "kernel": 1, "inputs": [0, 1]},
        ],
        True,
        [[2, 4, 8], [512, 512, 1024], [0, 0, 0]],
        cores=[ANY, ANY, ANY],
    ),
    ChipCase(
        "three_destinations", (1, 8, 8),
        [
            {"conv": (1, 2), "kernel": 1},
            {"conv": (2, 2), "kernel": 1},
            {"conv": (2, 2), "kernel": 1, "inputs": [0]},
            {"conv": (2, 2), "kernel": 1, "inputs": [0]},
            {"conv": (2, 1), "kernel": 1, "inputs": [1, 2]},
            {"conv": (2, 1), "kernel": 1, "inputs": [3]},
            {"conv": (1, 1), "kernel": 1, "inputs": [4, 5]},
        ],
        False,
        [[2, 4, 4, 4, 2, 2, 1], [128, 128, 128, 128, 64, 64, 64], [0, 0, 0, 0, 0, 0, 0]],
        cores=[ANY, ANY, ANY, ANY, ANY, ANY, ANY],
        documented=["fan-out"],
    ),
    ChipCase(
        "merge_of_three", (1, 8, 8),
        [
            {"conv": (1, 2), "kernel": 1},
            {"conv": (2, 2), "kernel": 1},
            {"conv": (2, 2), "kernel": 1, "inputs": [0]},
            {"conv": (2, 2), "kernel": 1, "inputs": [0]},
            {"conv": (2, 1), "kernel": 1, "inputs": [1, 2, 3]},
        ],
        False,
    ),
    ChipCase(
        "two_destinations_pooled", (1, 16, 16),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 2, "stride": 2},
            {"conv": (4, 4), "kernel": 4, "stride": 2, "padding": 1, "inputs": [0]},
            {"conv": (4, 2), "kernel": 3, "inputs": [1, 2]},
        ],
        True,
        [[64, 64, 256, 128], [1024, 256, 256, 128], [0, 0, 0, 0]],
        cores=[ANY, ANY, ANY, ANY],
    ),
    ChipCase(
        "lif", (1, 8, 8),
        [
            {"conv": (1, 2), "kernel": 1, "neuron": "lif"},
        ],
        False,
    ),
    ChipCase(
        "no_last_neuron", (1, 8, 8),
        [
            {"conv": (1, 2), "kernel": 1},
            {"conv": (2, 2), "kernel": 1, "neuron": "none"},
        ],
        False,
    ),
    ChipCase(
        "two_convolutions", (1, 8, 8),
        [
            {"conv": (1, 2), "kernel": 1, "neuron": "none"},
            {"conv": (2, 2), "kernel": 1},
        ],
        False,
    ),
    ChipCase(
        "dvs_input", (2, 64, 64),
        [
            {"conv": (2, 4), "kernel": 3, "stride": 2, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "stride": 2, "padding": 1},
        ],
        True,
        [[128, 256], [4096, 1024], [0, 0]],
        cores=[ANY, ANY],
    ),
    ChipCase(
        "mini_five", (1, 8, 8),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
        ],
        True,
        [[64, 256, 256, 256, 256], [256, 256, 256, 256, 256], [0, 0, 0, 0, 0]],
        cores=[[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]],
        chip="speck2cmini",
    ),
    ChipCase(
        "mini_six", (1, 8, 8),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
        ],
        False,
        [[64, 256, 256, 256, 256, 256], [256, 256, 256, 256, 256, 256], [0, 0, 0, 0, 0, 0]],
        cores=[[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]],
        chip="speck2cmini",
    ),
    ChipCase(
        "mini_three_biases", (1, 8, 8),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1, "bias": True},
            {"conv": (4, 4), "kernel": 3, "padding": 1, "bias": True},
            {"conv": (4, 4), "kernel": 3, "padding": 1, "bias": True},
        ],
        False,
        [[64, 256, 256], [256, 256, 256], [4, 4, 4]],
        cores=[[3, 4], [3, 4], [3, 4]],
        chip="speck2cmini",
    ),
    ChipCase(
        "mini_two_biases", (1, 8, 8),
        [
            {"conv": (1, 4), "kernel": 3, "padding": 1, "bias": True},
            {"conv": (4, 4), "kernel": 3, "padding": 1, "bias": True},
            {"conv": (4, 4), "kernel": 3, "padding": 1},
        ],
        True,
        [[64, 256, 256], [256, 256, 256], [4, 4, 0]],
        cores=[[3, 4], [3, 4], [0, 1, 2, 3, 4]],
        chip="speck2cmini",
    ),
]
