"""An event-driven core in plain Python loops that counts every memory access and operation.

The network is a list of layer descriptions (``Conv2d``, ``Linear``, ``Neuron``, ``Pool``,
``Flatten``, ``Residual``); ``describe`` makes one from a ``torch.nn.Sequential``.  Nothing
is computed with tensors: the layers exchange events ``(site, value)``, each neuron's
potential is a Python float, and a count grows by one exactly where the access happens.

What one time step does to a synapse layer and the neurons behind it:

* every arriving event is read from the input queue (1 input read); for every neuron it
  reaches, a weight is read, a potential is read, the two are added, and the potential is
  written.  An event is the message of ONE spike: two spikes that meet at one place (after an
  addition, a pooling, or from a neuron that fires twice) remain two events.
* then every neuron is visited once: potential read, bias read and added (if there is one),
  compared with the threshold, reset, multiplied by the leak (if leaky; for the next step,
  the same as leaking at its beginning), potential written.
* every spike costs one addition (reset) and one output write, whatever number of layers
  read it later.

Pooling, flattening and addition only re-address events: they cost nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

COUNTS = (
    "Inputs read",
    "Weights read",
    "Biases read",
    "Potentials read",
    "Potentials written",
    "Outputs written",
    "accumulates",
    "multiplies",
)
ADDRESSING = (
    "multiplies",  # 2 per event of a convolution
    "additions",  # the formula as printed: C_out/groups * kernel positions (linear: N_out)
    "additions per position",  # kernel positions only, without C_out (linear: N_out)
    "additions per target",  # only targets that exist: border and stride respected
)


# ------------------------------------------------------------------ descriptions


@dataclass
class Conv2d:
    weight: list  # [out channel][in channel within group][ky][kx]
    bias: list | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    name: str = ""


@dataclass
class Linear:
    weight: list  # [out][in]
    bias: list | None = None
    name: str = ""


@dataclass
class Neuron:
    """``potential = leak * potential + input + bias``; leak 1 is IF, anything else LIF."""

    threshold: float = 1.0
    leak: float = 1.0
    reset: str = "soft"  # "soft": subtract the threshold; "hard": to zero
    multiple: bool = False  # fire as often per step as the potential holds thresholds
    name: str = ""


@dataclass
class Pool:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    average: bool = True


@dataclass
class Flatten:
    pass


@dataclass
class Residual:
    """Sum of two branches that both carry events; an empty branch passes its input on."""

    first: list
    second: list = field(default_factory=list)


# --------------------------------------------------------------------- simulation


def simulate(model, x) -> list[dict]:
    """Counts per synapse layer, in the order of execution, for all steps of one sample.

    ``x`` is nested ``[step][channel][row][column]`` or ``[step][feature]`` (or a tensor of
    that shape) of whole numbers >= 0; a value of n is n events.
    """
    return run(model, x)[0]


def run(model, x) -> tuple[list[dict], dict[str, list]]:
    """``simulate``, and the output of every neuron: name -> [step][site in flat order]."""
    x = x.tolist() if hasattr(x, "tolist") else x
    network = _Chain(model, _shape(x[0]))
    if any(core.neuron is None for core in network.cores[:-1]):
        raise ValueError("only the last synapse may be without a neuron")
    for frame in x:
        network.step(_events(frame))
    return [core.report() for core in network.cores], {
        core.output_name: core.history for core in network.cores
    }


class _Chain:
    """Layers one after another; each stage takes a list of events and returns one."""

    def __init__(self, layers, shape):
        self.stages, self.cores = [], []
        layers = list(layers)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, (Conv2d, Linear)):
                neuron = layers.pop(0) if layers and isinstance(layers[0], Neuron) else None
                if neuron is None and layers:
                    raise ValueError("a synapse must be followed by a neuron, or be the last")
                stage = _Core(layer, neuron, shape)
                self.cores.append(stage)
            elif isinstance(layer, Pool):
                stage = _PoolStage(layer, shape)
            elif isinstance(layer, Flatten):
                stage = _FlattenStage(shape)
            elif isinstance(layer, Residual):
                stage = _ResidualStage(layer, shape)
                self.cores += stage.cores
            elif isinstance(layer, Neuron):
                raise TypeError(f"no synapse before the neuron {layer.name!r}")
            else:
                raise TypeError(f"{layer!r} is not a layer")
            self.stages.append(stage)
            shape = stage.shape
        self.shape = shape

    def step(self, events):
        for stage in self.stages:
            events = stage.step(events)
        return events


class _ResidualStage:
    def __init__(self, layer, shape):
        self.branches = [_Chain(layer.first, shape), _Chain(layer.second, shape)]
        self.cores = self.branches[0].cores + self.branches[1].cores
        self.shape = self.branches[0].shape
        if self.branches[1].shape != self.shape:
            raise ValueError(f"branches end in {self.shape} and {self.branches[1].shape}")
        if any(core.neuron is None for core in self.cores):
            raise ValueError("a branch must end in spikes")

    def step(self, events):
        return self.branches[0].step(events) + self.branches[1].step(events)


class _FlattenStage:
    def __init__(self, shape):
        self.input_shape = shape
        size = 1
        for extent in shape:
            size *= extent
        self.shape = (size,)

    def step(self, events):
        return [((_flat(site, self.input_shape),), value) for site, value in events]


class _PoolStage:
    def __init__(self, layer, shape):
        self.layer = layer
        channels, *extents = shape
        self.shape = (
            channels,
            *(
                (n - k) // s + 1
                for n, k, s in zip(extents, layer.kernel, layer.stride, strict=True)
            ),
        )

    def step(self, events):
        layer, out = self.layer, []
        scale = 1.0 / (layer.kernel[0] * layer.kernel[1]) if layer.average else 1.0
        for (c, y, x), value in events:
            for row in range(self.shape[1]):
                for column in range(self.shape[2]):
                    if (
                        0 <= y - row * layer.stride[0] < layer.kernel[0]
                        and 0 <= x - column * layer.stride[1] < layer.kernel[1]
                    ):
                        out.append(((c, row, column), value * scale))
        return out


class _Core:
    """A synapse layer with its queue, its memories and the neurons it drives."""

    def __init__(self, synapse, neuron, shape):
        self.synapse, self.neuron = synapse, neuron
        self.input_shape = shape
        self.convolution = isinstance(synapse, Conv2d)
        if self.convolution:
            kernel = (len(synapse.weight[0][0]), len(synapse.weight[0][0][0]))
            if len(shape) != 3 or shape[0] != len(synapse.weight[0]) * synapse.groups:
                raise ValueError(f"{synapse.name}: input of shape {shape} does not fit")
            self.kernel = kernel
            self.shape = (
                len(synapse.weight),
                *(
                    (n + 2 * p - d * (k - 1) - 1) // s + 1
                    for n, k, s, p, d in zip(
                        shape[1:],
                        kernel,
                        synapse.stride,
                        synapse.padding,
                        synapse.dilation,
                        strict=True,
                    )
                ),
            )
        else:
            if shape != (len(synapse.weight[0]),):
                raise ValueError(f"{synapse.name}: input of shape {shape} does not fit")
            self.shape = (len(synapse.weight),)
        self.sites = list(product(*(range(extent) for extent in self.shape)))
        self.potential = dict.fromkeys(self.sites, 0.0)
        self.counts = dict.fromkeys(COUNTS, 0)
        self.addressing = dict.fromkeys(ADDRESSING, 0)
        self.output_name = neuron.name if neuron else synapse.name
        self.history = []  # per step: spikes (or, without a neuron, potentials)
        self.steps = self.active = self.pairs = 0

    # every access to a memory goes through one of these
    def read_weight(self, *index):
        self.counts["Weights read"] += 1
        value = self.synapse.weight
        for i in index:
            value = value[i]
        return value

    def read_bias(self, channel):
        self.counts["Biases read"] += 1
        return self.synapse.bias[channel]

    def read_potential(self, site):
        self.counts["Potentials read"] += 1
        return self.potential[site]

    def write_potential(self, site, value):
        self.counts["Potentials written"] += 1
        self.potential[site] = value

    def add(self, a, b):
        self.counts["accumulates"] += 1
        return a + b

    def multiply(self, a, b):
        self.counts["multiplies"] += 1
        return a * b

    def step(self, events):
        self.steps += 1
        self.active += len({site for site, _ in events})
        for site, value in events:
            self.counts["Inputs read"] += 1
            self.address()
            for target, index in self.targets(site):
                self.pairs += 1
                self.addressing["additions per target"] += 1
                # value is the size of one spike (1, or 1/area behind an average pooling);
                # a core has it folded into the weights, so it costs no multiplication
                weight = self.read_weight(*index) * value
                potential = self.read_potential(target)
                self.write_potential(target, self.add(potential, weight))
        fired, record = [], []
        for site in self.sites:
            potential = self.read_potential(site)
            if self.synapse.bias is not None:
                potential = self.add(potential, self.read_bias(site[0]))
            spikes = 0
            if self.neuron is not None:
                while potential >= self.neuron.threshold:
                    spikes += 1
                    if self.neuron.reset == "hard":
                        self.counts["accumulates"] += 1
                        potential = 0.0
                    else:
                        potential = self.add(potential, -self.neuron.threshold)
                    self.counts["Outputs written"] += 1
                    fired.append((site, 1.0))
                    if not self.neuron.multiple:
                        break
                if self.neuron.leak != 1.0:
                    potential = self.multiply(potential, self.neuron.leak)
            self.write_potential(site, potential)
            record.append(spikes if self.neuron is not None else potential)
        self.history.append(record)
        return fired

    def address(self):
        """What finding an event's targets costs, for the three readings of the model."""
        if self.convolution:
            for _ in range(2):
                self.addressing["multiplies"] += 1
            for _ in range(self.kernel[0]):
                for _ in range(self.kernel[1]):
                    self.addressing["additions per position"] += 1
                    for _ in range(self.shape[0] // self.synapse.groups):
                        self.addressing["additions"] += 1
        else:
            for _ in range(self.shape[0]):
                self.addressing["additions"] += 1
                self.addressing["additions per position"] += 1

    def targets(self, site):
        """Every neuron an event at ``site`` reaches, and the index of the weight to it."""
        if not self.convolution:
            for out in range(self.shape[0]):
                yield (out,), (out, site[0])
            return
        synapse = self.synapse
        c, y, x = site
        fan_in = self.input_shape[0] // synapse.groups
        fan_out = self.shape[0] // synapse.groups
        group = c // fan_in
        for ky in range(self.kernel[0]):
            row = y + synapse.padding[0] - ky * synapse.dilation[0]
            if row % synapse.stride[0] or not 0 <= row // synapse.stride[0] < self.shape[1]:
                continue
            for kx in range(self.kernel[1]):
                column = x + synapse.padding[1] - kx * synapse.dilation[1]
                if (
                    column % synapse.stride[1]
                    or not 0 <= column // synapse.stride[1] < self.shape[2]
                ):
                    continue
                for out in range(group * fan_out, (group + 1) * fan_out):
                    yield (
                        (out, row // synapse.stride[0], column // synapse.stride[1]),
                        (out, c % fan_in, ky, kx),
                    )

    def report(self):
        return {
            "name": self.synapse.name,
            "kind": "conv" if self.convolution else "linear",
            "neuron": self.neuron and ("IF" if self.neuron.leak == 1.0 else "LIF"),
            **self.counts,
            "addressing": dict(self.addressing),
            # for whoever defines events differently or checks by formula
            "steps": self.steps,
            "neurons": len(self.sites),
            "events": self.counts["Inputs read"],
            "active sites": self.active,  # an input of value 2 once
            "pairs": self.pairs,  # (event, target)
            "spikes": self.counts["Outputs written"],
        }


def _shape(nested):
    shape = ()
    while isinstance(nested, list):
        shape += (len(nested),)
        nested = nested[0]
    return shape


def _flat(site, shape):
    index = 0
    for i, extent in zip(site, shape, strict=True):
        index = index * extent + i
    return index


def _events(frame, site=()):
    """Nested whole numbers to events, each of value 1."""
    if isinstance(frame, list):
        return [event for i, part in enumerate(frame) for event in _events(part, (*site, i))]
    if frame < 0 or frame != int(frame):
        raise ValueError(f"an input of {frame} is not a number of events")
    return [(site, 1.0)] * int(frame)


# ------------------------------------------------------ from PyTorch, without importing it


def describe(model) -> list:
    """The description of a ``torch.nn.Sequential`` (nested ones and ``Add`` included)."""
    return _describe(model, "")


def _describe(module, name):
    kinds = {kind.__name__ for kind in type(module).__mro__}
    if "Sequential" in kinds:
        parts = []
        for key, child in module.named_children():
            parts += _describe(child, f"{name}.{key}" if name else key)
        return parts
    if "Add" in kinds:
        return [
            Residual(
                _describe(module.first, f"{name}.first"),
                _describe(module.second, f"{name}.second"),
            )
        ]
    if kinds & {"Identity", "Dropout"}:
        return []
    if "Flatten" in kinds:
        return [Flatten()]
    if "Linear" in kinds:
        return [Linear(_values(module.weight), _values(module.bias), name)]
    if "Conv2d" in kinds:
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise ValueError(f"{name}: only explicit zero padding")
        return [
            Conv2d(
                _values(module.weight),
                _values(module.bias),
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
                name,
            )
        ]
    if "AvgPool2d" in kinds:
        if _pair(module.padding) != (0, 0) or module.ceil_mode or module.divisor_override:
            raise ValueError(f"{name}: only plain average pooling")
        return [Pool(_pair(module.kernel_size), _pair(module.stride or module.kernel_size))]
    if "LPPool2d" in kinds:  # with norm 1: sum pooling, as sinabs' SumPool2d
        if module.norm_type != 1 or module.ceil_mode:
            raise ValueError(f"{name}: only sum pooling")
        stride = _pair(module.stride or module.kernel_size)
        return [Pool(_pair(module.kernel_size), stride, average=False)]
    return [_describe_neuron(module, kinds, name)]


def _describe_neuron(module, kinds, name):
    if "PlainNeuron" in kinds:
        return Neuron(module.threshold, module.leak, module.reset, module.multiple, name)
    if kinds & {"IFNode", "LIFNode"}:  # spikingjelly
        if module.v_reset not in (None, 0.0):
            raise ValueError(f"{name}: only reset to zero")
        leak = 1.0
        if "LIFNode" in kinds:
            if module.decay_input:
                raise ValueError(f"{name}: only decay_input=False")
            leak = 1.0 - 1.0 / module.tau
        reset = "soft" if module.v_reset is None else "hard"
        return Neuron(module.v_threshold, leak, reset, False, name)
    if "IAF" in kinds:  # sinabs
        if module.min_v_mem is not None or type(module.reset_fn).__name__ != "MembraneSubtract":
            raise ValueError(f"{name}: only reset by subtraction, without a lower bound")
        multiple = module.spike_fn.__name__ == "MultiSpike"
        return Neuron(float(module.spike_threshold), 1.0, "soft", multiple, name)
    raise ValueError(f"{name}: {type(module).__name__} is not described")


def _values(tensor):
    return None if tensor is None else tensor.detach().tolist()


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)
