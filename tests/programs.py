"""Random programs: forwards of registered operations, with random arguments, spellings and states.

A program is Python source. It is written statement by statement, each of which is executed on an
example at once, so that shapes are known. Beside every value stands what one event is worth in it,
or that it is analog: by the statement that made it, not by what fxsynops says of it.
"""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from tests.outcome import by_module, same
from tests.watched import drop_zeros, watch

BATCH = 3


class Fire(torch.autograd.Function):
    """A step, as people write it."""

    @staticmethod
    def forward(ctx, v):
        return (v > 0.5).float()

    @staticmethod
    def backward(ctx, g):
        return g


@dataclass(frozen=True)
class Value:
    """A variable of a program: what it is in the example, and what one event in it is worth."""

    name: str
    tensor: Tensor
    unit: float | None  # None: analog
    signed: bool = False


@dataclass
class Program:
    """Source, and what its layers are to get.

    Attributes:
        lines: of the forward.
        modules: of the model, by name.
        buffers: likewise.
        units: what one event is worth at each head; None: its input is analog.
        plain: whether no events can cancel, so that what arrives is what left.
    """

    seed: int
    lines: list[str] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    states: dict[str, Tensor] = field(default_factory=dict)
    units: dict[str, float | None] = field(default_factory=dict)
    plain: bool = True

    @property
    def source(self) -> str:
        body = "\n".join(f"    {line}" for line in self.lines)
        return f"def forward(self, x, y):\n{body}\n"

    def model(self) -> nn.Module:
        """The program as a module; each call makes another with the same weights."""
        model = nn.Module()
        for name, module in self.modules.items():
            model.add_module(name, module)
        for name, buffer in self.buffers.items():
            model.register_buffer(name, buffer.clone())
        for name, state in self.states.items():
            setattr(model, name, state.clone())
        file = f"<program {self.seed}>.py"
        names: dict[str, Any] = {"torch": torch, "F": F, "fire": Fire.apply}
        exec(compile(self.source, file, "exec"), names)
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(True), file)
        cls = type("Model", (nn.Module,), {"forward": names["forward"], "__module__": __name__})
        model.__class__ = cls
        return model


Statement = tuple[str, "float | None", bool]  # an expression, the unit of its value, signed
Maker = Callable[["Writer", Value], "Statement | None"]
MAKERS: list[Maker] = []


def maker(weight: int = 1) -> Callable[[Maker], Maker]:
    def add(function: Maker) -> Maker:
        MAKERS.extend([function] * weight)
        return function

    return add


class Writer:
    """Writes one program."""

    def __init__(self, seed: int, length: int) -> None:
        self.draw = random.Random(seed)
        self.program = Program(seed)
        torch.manual_seed(seed)
        self.images = self.draw.random() < 0.5
        self.size = (BATCH, 4, 4, 4) if self.images else (BATCH, 8)
        self.inputs = tuple(self.spikes(0.5) for _ in "xy")
        self.others = tuple(self.spikes(0.8) for _ in "xy")
        self.names: dict[str, Any] = {"torch": torch, "F": F, "fire": Fire.apply}
        self.values = [Value(n, t, 1.0) for n, t in zip("xy", self.inputs, strict=True)]
        self.names |= {v.name: v.tensor for v in self.values}
        self.names["self"] = self.program
        for _ in range(length):
            self.statement()
        self.heads()

    def spikes(self, p: float) -> Tensor:
        many = self.draw.random() < 0.3
        drawn = torch.rand(self.size).lt(p).float()
        return drawn * torch.randint(1, 4, self.size) if many else drawn

    # -- what statements draw ------------------------------------------------------------------

    def choose(self, *options: Any) -> Any:
        return self.draw.choice(options)

    def axis(self, v: Value) -> int:
        return self.draw.randrange(1, v.tensor.dim())

    def like(self, v: Value, *, unit: bool = True) -> Value:
        """Another value of the same shape and kind; the same, if there is none."""
        found = [
            w
            for w in self.values
            if w.tensor.shape == v.tensor.shape
            and w.tensor.dtype == v.tensor.dtype
            and (w.unit == v.unit if unit else w.unit is not None)
        ]
        return self.draw.choice(found or [v])

    def buffer(self, tensor: Tensor) -> str:
        name = f"b{len(self.program.buffers)}"
        self.program.buffers[name] = tensor
        setattr(self.program, name, tensor)
        return f"self.{name}"

    def module(self, module: nn.Module) -> str:
        name = f"m{len(self.program.modules)}"
        self.program.modules[name] = module.eval()
        setattr(self.program, name, module)
        return f"self.{name}"

    # -- statements ----------------------------------------------------------------------------

    def statement(self) -> None:
        v = self.draw.choice(self.values[-4:])
        made = self.draw.choice(MAKERS)(self, v)
        if made is None:
            return
        code, unit, signed = made
        name = f"v{len(self.program.lines)}"
        lines = code.format(out=name).split("\n") if "{out}" in code else [f"{name} = {code}"]
        names = dict(self.names)
        copies = {k: t.clone() for k, t in names.items() if isinstance(t, Tensor)}
        try:
            exec("\n".join(lines), names | copies if "{out}" in code else names)
            if "{out}" in code:
                names = names | copies
                exec("\n".join(lines), names)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return
        made = names[name]
        if not isinstance(made, Tensor) or made.numel() > 4000 or not 2 <= made.dim() <= 4:
            return
        if made.shape[0] != BATCH or 0 in made.shape:
            return
        self.program.lines += lines
        self.names[name] = made.detach()
        self.values.append(Value(name, made.detach(), unit, signed))
        self.program.plain &= not signed

    def heads(self) -> None:
        """One or two layers that read what was made."""
        ends = self.draw.sample(self.values[-3:], min(2, len(self.values[-3:])))
        results = []
        for i, v in enumerate(dict.fromkeys(e.name for e in ends)):
            value = next(w for w in self.values if w.name == v)
            name, code = f"head{i}", f"{v}.float()"
            if value.tensor.dim() == 4 and self.draw.random() < 0.5:
                kernel = self.choose(1, 2)
                layer: nn.Module = nn.Conv2d(
                    value.tensor.shape[1], 2, kernel, padding=self.choose(0, 1)
                )
                code += ".flatten(0, 0)"
            else:
                layer = nn.Linear(value.tensor[0].numel(), 3)
                code += ".flatten(1)"
            self.program.modules[name] = layer
            self.program.units[name] = value.unit
            self.program.lines.append(f"{name} = self.{name}({code})")
            results.append(name)
        self.program.lines.append(f"return {', '.join(results)}")


# -- events that go elsewhere ----------------------------------------------------------------------


@maker(8)
def moved(w: Writer, v: Value) -> Statement:
    n, k = v.name, w.axis(v)
    size, last = v.tensor.shape[k], v.tensor.dim() - 1
    a, b = sorted((w.draw.randrange(size), w.draw.randrange(size)))
    index = "[:, " + ":, " * (k - 1)
    fixed = torch.randint(size, (max(size, 1),))
    code = w.choose(
        f"{n}.flip({k})",
        f"torch.flip({n}, dims=[{k}])",
        f"{n}.roll({a}, {k})",
        f"torch.roll({n}, shifts={a}, dims={k})",
        f"{n}.transpose(1, {last})",
        f"torch.swapaxes({n}, {last}, 1)",
        f"{n}.movedim({k}, 1)",
        f"{n}.flatten(1)",
        f"{n}.reshape({BATCH}, -1)",
        f"{n}.unsqueeze(1)",
        f"{n}{index}{a}:{b + 1}]",
        f"{n}{index}::2]",
        f"{n}{index}{a}:{a + 1}]",
        f"{n}.narrow({k}, {a}, {b - a + 1})",
        f"torch.narrow({n}, {k}, {a}, length={b - a + 1})",
        f"{n}.chunk(2, {k})[0]",
        f"{n}.split({b + 1}, dim={k})[0]",
        f"torch.stack({n}.unbind({k}), {k})",
        f"torch.cat([{n}, {w.like(v).name}], {k})",
        f"torch.concat(({n}, {w.like(v).name}), axis={k})",
        f"torch.stack([{n}, {w.like(v).name}], dim=1)",
        f"{n}.repeat(1, {', '.join(['2'] * last)})",
        f"{n}.repeat_interleave(2, {k})",
        f"torch.tile({n}, (2,))",
        f"F.pad({n}, (1, 1))",
        f"F.pad({n}, (0, 1), value=0.0)",
        f"{n}.index_select({k}, {w.buffer(fixed)})",
        f"torch.index_select({n}, {k}, index={w.buffer(fixed)})",
        f"{n}{index}{w.buffer(fixed)}]",
        f"{n}.clone()",
        f"{n}.contiguous()",
        f"{n}.double().float()",
        f"{n}.to(torch.float64).to(torch.float32)",
        f"torch.ravel({n}).reshape({tuple(v.tensor.shape)})",
        f"{n}.expand_as({n})",
        f"{n}.view({tuple(v.tensor.shape)})",
        f"{n}.tril() if {last} == 3 else {n}",
        f"torch.einsum('n...->n...', {n})",
        f"F.dropout({n}, 0.5, training=False)",
    )
    return code, v.unit, v.signed


@maker(3)
def pooled(w: Writer, v: Value) -> Statement | None:
    if v.tensor.dim() != 4 or v.unit is None:
        return None
    n, kind = v.name, w.draw.randrange(7)
    even = all(size % 2 == 0 for size in v.tensor.shape[2:])
    if kind == 0 and even:
        return f"F.avg_pool2d({n}, 2)", v.unit / 4, v.signed
    if kind == 1 and v.tensor.shape[2:] == (4, 4):
        return f"F.adaptive_avg_pool2d({n}, 2)", v.unit / 4, v.signed
    if kind == 2:
        return f"F.interpolate({n}, scale_factor=2)", v.unit, v.signed
    if kind == 3 and v.tensor.shape[1] % 4 == 0:
        return f"F.pixel_shuffle({n}, 2)", v.unit, v.signed
    if kind == 4 and even:
        return f"F.pixel_unshuffle({n}, 2)", v.unit, v.signed
    if kind == 5:
        return f"F.unfold({n}, 2)", v.unit, v.signed
    pool = w.choose(
        f"F.max_pool2d({n}, 2)",
        f"F.max_pool2d({n}, 3, stride=1, padding=1)",
        f"F.max_pool2d({n}, kernel_size=2, stride=1)",
        f"F.adaptive_max_pool2d({n}, 2)",
    )
    return pool, v.unit, v.signed


@maker(3)
def summed(w: Writer, v: Value) -> Statement | None:
    if v.unit is None:
        return None
    n, k, other = v.name, w.axis(v), w.like(v)
    size = v.tensor.shape[k]
    if w.draw.random() < 0.3 and size in (1, 2, 4, 8):
        code = w.choose(f"{n}.mean({k}, keepdim=True)", f"torch.mean({n}, dim={k}, keepdim=True)")
        return code, v.unit / size, v.signed
    code = w.choose(
        f"{n}.sum({k}, keepdim=True)",
        f"torch.sum({n}, dim=({k},), keepdim=True)",
        f"torch.sum({n}, axis={k}, keepdims=True)",
        f"{n}.cumsum({k})",
        f"{n} + {other.name}",
        f"torch.add({n}, {other.name})",
        f"{n}.add({other.name}, alpha=1)",
        f"sum([{n}, {other.name}])",
    )
    return code, v.unit, v.signed or other.signed


@maker(2)
def scaled(w: Writer, v: Value) -> Statement | None:
    if v.unit is None:
        return None
    n, kind = v.name, w.draw.randrange(4)
    if kind == 0:
        code = w.choose(f"{n} * 2.0", f"2 * {n}", f"torch.mul({n}, 2.0)", f"{n}.multiply(2)")
        return code, v.unit * 2, v.signed
    if kind == 1:
        code = w.choose(f"{n} / 4", f"torch.div({n}, 4.0)", f"{n}.true_divide(4)")
        return code, v.unit / 4, v.signed
    if kind == 2:
        return f"-{n}", v.unit, True
    mask = w.buffer(torch.rand(v.tensor.shape[1:]).lt(0.6).float())
    return w.choose(f"{n} * {mask}", f"{mask} * {n}", f"torch.mul({n}, {mask})"), v.unit, v.signed


@maker()
def subtracted(w: Writer, v: Value) -> Statement | None:
    if v.unit is None:
        return None
    other = w.like(v).name
    code = w.choose(f"{v.name} - {other}", f"torch.sub({v.name}, {other})")
    return code, v.unit, True


# -- gates and thresholds --------------------------------------------------------------------------


@maker(5)
def gated(w: Writer, v: Value) -> Statement | None:
    if v.unit is None:
        return None
    n, k, other = v.name, w.axis(v), w.like(v)
    limit = v.unit * w.choose(1, 2)
    mask = w.buffer(torch.rand(v.tensor.shape[1:]).lt(0.6))
    shape = v.tensor.shape
    index = w.buffer(torch.randint(shape[k], (1, *shape[1:])).expand(shape).contiguous())
    code = w.choose(
        f"{n}.relu()",
        f"F.relu({n})",
        f"{n}.clamp(min=0)",
        f"torch.clamp({n}, 0, {limit})",
        f"{n}.clip(max={limit})",
        f"F.hardtanh({n}, 0.0, {limit})",
        f"{n}.amax({k}, keepdim=True)",
        f"{n}.max({k}, keepdim=True).values",
        f"torch.max({n}, dim={k}, keepdim=True)[0]",
        f"{n}.topk(1, dim={k}).values",
        f"{n}.sort({k})[0]",
        f"torch.maximum({n}, {other.name})",
        f"torch.minimum({n}, {other.name})",
        f"torch.where({n} > 0, {n}, {other.name})",
        f"torch.where({mask}, {n}, {other.name})",
        f"torch.where({mask}, {n}, 0.0)",
        f"{n}.masked_fill({mask}, 0.0)",
        f"{n}.masked_fill({other.name} > 0, 0)",
        f"{n}.gather({k}, {index})",
        f"torch.take_along_dim({n}, {index}, {k})",
        f"{n}.abs()",
        f"torch.zeros_like({n}).scatter_add(1, {index}.clamp(max={shape[1] - 1}), {n})",
    )
    return code, v.unit, (v.signed or other.signed) and "abs" not in code


@maker(2)
def met(w: Writer, v: Value) -> Statement | None:
    """Events times events."""
    other = w.like(v, unit=False)
    if v.unit is None or other.unit is None:
        return None
    code = w.choose(f"{v.name} * {other.name}", f"torch.mul({v.name}, {other.name})")
    return code, v.unit * other.unit, v.signed or other.signed


@maker(3)
def fired(w: Writer, v: Value) -> Statement | None:
    n, other = v.name, w.like(v, unit=False).name
    if v.unit is None:
        return f"fire({n})", 1.0, False
    code = w.choose(
        f"({n} > 0).float()",
        f"{n}.gt(0).to(torch.float32)",
        f"torch.ge({n}, {v.unit}).float()",
        f"(({n} > 0) & ({other} > 0)).float()",
        f"(({n} > 0) | ({other} > 0)).float()",
        f"torch.logical_xor({n} > 0, {other} > 0).float()",
        f"({n} != 0).float()",
        f"{n}.sign().abs()",
        f"fire({n})",
        f"fire({n} * 1.5 - 0.2)",
    )
    return code, 1.0, False


@maker(3)
def layer(w: Writer, v: Value) -> Statement | None:
    """A synapse, and spikes behind it."""
    if v.unit not in (None, 1.0) or v.tensor.dim() not in (2, 4):
        return None
    if v.tensor.dim() == 4:
        conv = nn.Conv2d(v.tensor.shape[1], 2, w.choose(1, 3), padding=1)
        inner = w.module(conv)
    else:
        inner = w.module(nn.Linear(v.tensor.shape[1], 8))
    name = inner.removeprefix("self.")
    w.program.units[name] = v.unit
    if w.draw.random() < 0.3:
        return f"{inner}({v.name}.float())", None, False
    return f"fire({inner}({v.name}.float()) + 0.3)", 1.0, False


@maker()
def analog(w: Writer, v: Value) -> Statement:
    n = v.name
    code = w.choose(
        f"{n}.sigmoid()",
        f"torch.tanh({n} + 0.1)",
        f"F.softmax({n}.float(), 1)",
        f"F.layer_norm({n}, {n}.shape[1:])",
        f"torch.exp(-{n})",
    )
    return code, None, False


# -- writes, loops, states -------------------------------------------------------------------------


@maker(3)
def written(w: Writer, v: Value) -> Statement | None:
    if v.unit is None:
        return None
    n, other = v.name, w.like(v).name
    size = v.tensor.shape[1]
    mask = w.buffer(torch.rand(v.tensor.shape[1:]).lt(0.5))
    line = w.choose(
        f"{{out}} = {n}.clone()\n{{out}}[:, :{max(size // 2, 1)}] = 0",
        f"{{out}} = torch.zeros_like({n})\n{{out}}[:, 0] = {n}[:, -1]",
        f"{{out}} = torch.zeros_like({n})\n{{out}}.copy_({n})",
        f"{{out}} = {n}.clone()\n{{out}}.add_({other})",
        f"{{out}} = {n}.clone()\n{{out}} += {other}",
        f"{{out}} = {n}.clone()\n{{out}}.relu_()",
        f"{{out}} = {n}.clone()\n{{out}}.clamp_(min=0)",
        f"{{out}} = {n}.clone()\n{{out}}[{n} > 0] = 0",
        f"{{out}} = {n}.clone()\n{{out}}.masked_fill_({mask}, 0.0)",
        f"{{out}} = {n}.clone()\n{{out}}[:, {mask}.flatten()[0].long()] = {other}[:, 0]",
        f"{{out}} = torch.empty_like({n})\n{{out}}[...] = {n}",
        f"{{out}} = torch.zeros_like({n})\ntorch.add({n}, {other}, out={{out}})",
        f"{{out}} = {n}.clone()\n{{out}}[:1].zero_()",
    )
    return line, v.unit, v.signed


@maker(2)
def looped(w: Writer, v: Value) -> Statement | None:
    if v.unit is None:
        return None
    n, steps = v.name, w.choose(2, 3)
    code = w.choose(
        f"{{out}} = 0\nfor _ in range({steps}):\n    {{out}} = {{out}} + {n}",
        f"{{out}} = []\nfor t in range({n}.shape[1]):\n    {{out}}.append({n}[:, t])\n"
        f"{{out}} = torch.stack({{out}}, 1)",
        f"{{out}} = {n}\nfor t in range({steps}):\n    {{out}} = {{out}}.roll(1, 1)",
        f"{{out}} = torch.zeros_like({n})\nfor t in range({n}.shape[1]):\n"
        f"    {{out}}[:, t] = {n}[:, {n}.shape[1] - 1 - t]",
    )
    return code, v.unit, v.signed


@maker(2)
def remembered(w: Writer, v: Value) -> Statement | None:
    """A state that forwards leave to one another."""
    if v.unit is None or v.tensor.dtype != torch.float32:
        return None
    name = f"s{len(w.program.states)}"
    w.program.states[name] = torch.zeros(v.tensor.shape)
    setattr(w.program, name, torch.zeros(v.tensor.shape))
    code = w.choose(
        f"{{out}} = self.{name} + {v.name}\nself.{name} = {v.name}",
        f"{{out}} = self.{name} + {v.name}\nself.{name} = {{out}}.clamp(max={2 * v.unit})",
        f"self.{name} = 0.5 * self.{name} + {v.name}\n{{out}} = (self.{name} > 0.6).float()"
        f"\nself.{name} = self.{name} - {{out}}",
    )
    fires = "> 0.6" in code
    return code, 1.0 if fires else v.unit, not fires and v.signed


# -- judging ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of a program: "right", "refused" (in words), or what is wrong."""

    said: str
    reason: str = ""

    @property
    def wrong(self) -> bool:
        return self.said not in ("right", "refused")


def write(seed: int, length: int = 7) -> Writer:
    """A program."""
    return Writer(seed, length)


def judge(writer: Writer) -> Verdict:
    """Analyze a program on an example, and count it on that and other inputs."""
    program = writer.program
    counted, plain = program.model(), program.model()
    try:
        counter = fxsynops.SynOpsCounter(counted, writer.inputs)
    except fxsynops.AuditError as error:
        return Verdict("audit", str(error))
    except fxsynops.FxSynopsError as error:
        return Verdict("refused", str(error))
    except Exception as error:
        return Verdict("raw error", f"{type(error).__name__}: {error}")
    units = {name: unit for name, unit in program.units.items() if unit is not None}
    analog = tuple(name for name, unit in program.units.items() if unit is None)
    for inputs in (writer.inputs, writer.others, writer.inputs):
        try:
            with torch.no_grad():
                ours = counter(*inputs)
            theirs, synops, _ = watch(plain, *inputs, units=units, analog=analog)
            found = {name: float(n) for name, n in counter.per_synapse.items()}
        except fxsynops.SpecializationError as error:
            return Verdict("refused", str(error))
        except Exception as error:
            return Verdict("raw error", f"{type(error).__name__}: {error}")
        if not same(ours, theirs):
            return Verdict("output", f"{ours} is not {theirs}")
        found = drop_zeros(by_module(counted, found))
        if program.plain and found != synops:
            return Verdict("count", f"{found} is not {synops}")
        audit = counter.audit(*inputs) if inputs is writer.others else None
        if audit is not None and not audit.ok:
            return Verdict("audit", audit.explain())
    return Verdict("right")


def hunt(seeds: Iterator[int] | range) -> Iterator[tuple[int, Verdict]]:
    """The programs that are judged wrong."""
    for seed in seeds:
        verdict = judge(write(seed))
        if verdict.wrong:
            yield seed, verdict


if __name__ == "__main__":
    import sys
    from collections import Counter

    first, last = map(int, sys.argv[1:3])
    totals: Counter[str] = Counter()
    for seed in range(first, last):
        writer = write(seed)
        verdict = judge(writer)
        totals[verdict.said] += 1
        if verdict.wrong:
            print(f"--- {seed}: {verdict.said}: {verdict.reason[:600]}\n{writer.program.source}")
    print(dict(totals))
