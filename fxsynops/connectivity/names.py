"""Names for nodes: the module's path where a module is what the user sees, else the function's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import count

import torch
from torch import fx, nn

from fxsynops.connectivity.calls import origin_of, part_of
from fxsynops.connectivity.signals import Role, Signals
from fxsynops.operations.registry import operation_name
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import upstream
from fxsynops.tracing.node_meta import Site
from fxsynops.tracing.trace import Trace

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class Names:
    """Names of sources, gates and synapses.

    A module kept whole goes by its path, and so does a ``torch.nn`` module, or any module with
    only one synapse in its forward. A synapse whose weights the user's own module holds goes by
    their name, but for "weight". Other functions are ``<module path>:<function>``. One place in the
    code has one name, however often it is passed; further places with the same name are numbered
    (``#2``). A name is never that of two things: a module keeps it.
    """

    def __init__(self, trace: Trace, signals: Signals) -> None:
        self._modules = trace.modules
        self._inputs, self._places = frozenset(trace.names), trace.reads
        self._taken = {*trace.modules, *trace.names, *trace.reads}
        self._sites: dict[str, dict[object, int]] = defaultdict(dict)
        self._single = self._modules_with_one_synapse(signals)
        self._names = {
            node: self._name(node, role)
            for node, role in signals.roles.items()
            if role.kind not in ("routing", "other")
        }

    def __getitem__(self, node: fx.Node) -> str:
        return self._names[node] if node in self._names else self._name(node, None)

    def _modules_with_one_synapse(self, signals: Signals) -> set[str]:
        places: dict[str, set[object]] = defaultdict(set)
        for node, role in signals.roles.items():
            if role.counted:
                site: Site = origin_of(node)[0].meta["site"]
                places[site.module].add(site.code)
        return {module for module, codes in places.items() if len(codes) == 1}

    def _name(self, node: fx.Node, role: Role | None) -> str:
        origin, _ = origin_of(node := self._before_hooks(node))
        target = str(origin.target)
        if origin.op == "placeholder":
            return f"{target} (input)" if target in self._modules else target
        if origin.op == "get_attr":
            return f"{target} (state)" if target in self._inputs else target
        if origin.op == "call_module":
            return target or type(self._modules[""]).__name__
        if "module" in origin.meta:
            return origin.meta["module"]
        if origin.target is graph_functions.read_state:
            return str(getattr(origin.args[0], "name", ""))
        site: Site = origin.meta["site"]
        module = self._modules.get(site.module)
        is_synapse = role is not None and role.counted
        compiled = isinstance(origin.target, torch._ops.OpOverload)
        if compiled and role and role.synapse and (owner := self._owner(role.synapse.weight)):
            return owner
        if site.module and (
            _is_torch_layer(module) or (is_synapse and site.module in self._single)
        ):
            return site.module
        if is_synapse and role and role.synapse and (held := self._held(role.synapse.weight)):
            return self._numbered(held, site.code, (*self._modules, *self._inputs))
        function = origin.meta.get("function")
        short = function.__name__ if function else operation_name(origin.target)
        name = f"{site.module}:{short}" if site.module else short
        return self._numbered(name, site.code)

    @staticmethod
    def _before_hooks(node: fx.Node) -> fx.Node:
        """What makes a tensor that hooks only look at."""
        while True:
            origin, path = origin_of(node)
            handed_on = graph_functions.through_hooks(origin)
            if handed_on is None or origin.meta["hooked"]:
                return node
            node = part_of(handed_on, path)

    def _owner(self, weight: fx.Node | None) -> str:
        """The module that holds the weight of a call in compiled code, where no module is seen."""
        owner = next(iter(self._behind(weight)), "").rpartition(".")[0]
        return owner if owner in self._modules else ""

    def _held(self, weight: fx.Node | None) -> str:
        """The name of a tensor that is held by no layer of torch's, turned around perhaps."""
        name, *others = self._behind(weight) or [""]
        owner, _, own = name.rpartition(".")
        says_nothing = others or own == "weight" or _is_torch_layer(self._modules.get(owner))
        return "" if says_nothing else name

    def _behind(self, weight: fx.Node | None) -> list[str]:
        """The names of the model's tensors that a weight is made of."""
        held = [n for n in upstream([weight]) if n.op == "get_attr"] if weight else []
        return [
            str(n.meta.get("parameter") or n.target)
            for n in held
            if n.meta.get("parameter") or str(n.target) in self._places
        ]

    def _numbered(self, name: str, code: object, taken: Collection[str] | None = None) -> str:
        numbers, taken = self._sites[name], self._taken if taken is None else taken
        if code not in numbers:
            numbers[code] = next(
                number
                for number in count(2 if name in taken else 1)
                if number not in numbers.values() and f"{name}#{number}" not in self._taken
            )
        return name if numbers[code] == 1 else f"{name}#{numbers[code]}"


def _is_torch_layer(module: nn.Module | None) -> bool:
    """A layer of torch's own (or derived from one), whose one operation goes by its name."""
    if module is None or isinstance(module, _CONTAINERS):
        return False
    return any(
        base.__module__.startswith("torch.nn.modules") and base is not nn.Module
        for base in type(module).__mro__
    )
