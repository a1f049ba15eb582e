"""Frozen batch norm inside the convolutions before it: the same function in half the passes over memory.

In eval mode batch norm is y = (x - mean) / sqrt(var + eps) * weight + bias, an affine map per channel, and so can be
part of a convolution whose output nobody else reads (Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.2). The
folded network is a copy beside the student; its weights are computed anew whenever it is entered, since the student's
move. Being frozen it allows more, on a CPU (elsewhere it is unmeasured): activations written in place (`in_place`) and
wide convolutions in fewer multiplications (`winograd`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from absld_search.core import in_place, speed, winograd
from absld_search.core.in_place import CONVOLUTIONS, NORMS

Pair = tuple[str, str]  # names of a convolution and of the batch norm that alone reads it
PLAIN = (bool, int, float, str)
_PAIRS: dict[tuple[object, ...], list[Pair]] = {}  # of a structure: a search's trainings share a few


def pairs(model: nn.Module) -> list[Pair]:
    """What can be folded, in the order of computation; nothing where the network cannot be followed.

    Only plain modules that are called once are folded: batch norm before a convolution, as in pre-activation
    networks, stays where a residual sum feeds it and is folded where a convolution does.
    """
    if len(dict(model.named_parameters())) != len(list(model.named_parameters(remove_duplicate=False))):
        return []  # what two modules share can't be folded into one of them
    key = _structure(model)
    if key not in _PAIRS:
        _PAIRS[key] = _traced(model)
    return _PAIRS[key]


def _structure(model: nn.Module) -> tuple[object, ...]:
    """What a forward pass's order can depend on: modules, their types, and their plain attributes."""
    return tuple(
        (name, type(module), *((key, value) for key, value in vars(module).items() if isinstance(value, PLAIN)))
        for name, module in model.named_modules()
    )


def _traced(model: nn.Module) -> list[Pair]:
    """`pairs`, by following a symbol through the network."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # a forward that looks at its values, or at anything else a symbol does not have
        return []
    called = [node for node in graph.nodes if node.op == "call_module"]
    times: dict[str, int] = {}
    for node in called:
        times[str(node.target)] = times.get(str(node.target), 0) + 1
    touched = {str(node.target).rsplit(".", 1)[0] for node in graph.nodes if node.op == "get_attr"}
    found = []
    for node in called:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        names = (str(source.target), str(node.target))
        if all(times[name] == 1 and name not in touched for name in names) and _fit(model, *names):
            found.append(names)
    return found


def _fit(model: nn.Module, first: str, second: str) -> bool:
    conv, norm = model.get_submodule(first), model.get_submodule(second)
    plain = type(conv) in CONVOLUTIONS and type(norm) in NORMS
    return plain and norm.affine is True and isinstance(norm.running_var, Tensor)


class Folded:
    """A student with its frozen batch norm folded away: no gradient of a parameter, no statistic to move."""

    def __init__(
        self, model: nn.Module, found: list[Pair], dtype: torch.dtype | None, compile_for: int, shared: bool = False
    ) -> None:
        """`shared`: what is not folded is `model`'s own tensors, which nobody may move then."""
        self.pairs, self.form = found, form(model)
        own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())} if shared else {}
        self.network = copy.deepcopy(model, own).eval().requires_grad_(False)
        for conv_name, norm_name in found:
            conv = self.network.get_submodule(conv_name)
            assert isinstance(conv.weight, Tensor)
            if shared:
                conv.weight = nn.Parameter(torch.empty_like(conv.weight), requires_grad=False)
            conv.bias = nn.Parameter(conv.weight.new_zeros(len(conv.weight)), requires_grad=False)
            self.network.set_submodule(norm_name, nn.Identity())
        for module in self.network.modules():
            if dtype is not None and isinstance(module, (*CONVOLUTIONS, nn.Linear)):
                module.to(dtype)  # once, where autocast would cast the weights in every pass
        self.wide: list[winograd.WideConv] = []
        if not compile_for and _first(model).device.type == "cpu":
            self._shorten(wide=dtype is None and speed.of(model).minimal_filters)
        self.call = speed.compiled(self.network, compile_for) if compile_for else self.network._call_impl
        mine = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        self.weights = [mine.pop(f"{conv}.weight") for conv, _ in found]
        self.biases = [mine.pop(f"{conv}.bias") for conv, _ in found]
        self.rest = {name: tensor for name, tensor in mine.items() if tensor.is_floating_point() and not shared}

    def _shorten(self, wide: bool) -> None:
        """Compute the same in place, and wide convolutions in fewer multiplications."""
        if in_place.fits(self.network):
            self.network = in_place.rewritten(self.network)
        for name, module in list(self.network.named_modules()) if wide else []:
            if winograd.fits(module) and not in_place.hooked(module):
                assert isinstance(module, nn.Conv2d)
                self.wide.append(winograd.WideConv(module))
                self.network.set_submodule(name, self.wide[-1])

    @torch.no_grad()
    def refresh(self, model: nn.Module) -> None:
        """Take the weights and statistics that `model` has now."""
        now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        convs, norms = ([pair[side] for pair in self.pairs] for side in (0, 1))
        eps = [float(model.get_submodule(norm).eps) for norm in norms]  # type: ignore[arg-type]
        deviation = torch._foreach_sqrt(torch._foreach_add([now[f"{norm}.running_var"] for norm in norms], eps))
        scale = torch._foreach_div([now[f"{norm}.weight"] for norm in norms], deviation)
        weights = [now[f"{conv}.weight"] for conv in convs]
        broad = [s.view(-1, *[1] * (w.ndim - 1)) for s, w in zip(scale, weights, strict=True)]
        torch._foreach_copy_(self.weights, torch._foreach_mul(weights, broad))
        means = [_centre(now, *pair) for pair in self.pairs]
        biases = torch._foreach_sub([now[f"{norm}.bias"] for norm in norms], torch._foreach_mul(means, scale))
        torch._foreach_copy_(self.biases, biases)
        if self.rest:
            torch._foreach_copy_(list(self.rest.values()), [now[name] for name in self.rest])
        for conv in self.wide:
            conv.prepare()


def _centre(now: dict[str, Tensor], conv: str, norm: str) -> Tensor:
    """The running mean, less the convolution's own bias where it has one."""
    mean, bias = now[f"{norm}.running_mean"], now.get(f"{conv}.bias")
    return mean if bias is None else mean - bias


def _first(model: nn.Module) -> Tensor:
    """A parameter, which says where the network is and in which precision."""
    return next(model.parameters(), torch.empty(0))


def form(model: nn.Module) -> list[object]:
    """What a folded copy depends on beside weights: another form, another copy."""
    first = _first(model)
    shapes: list[object] = [(name, type(module)) for name, module in model.named_modules()]
    return [*shapes, first.dtype, first.device, first.shape, speed.of(model)]


_FOLDED: WeakKeyDictionary[nn.Module, dict[torch.dtype | None, Folded | None]] = WeakKeyDictionary()


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Inside, calling `model`, which is in eval mode, calls its folded copy, at the weights it had on entering.

    Gradients flow to the input and to no parameter. Where nothing can be folded, the model itself is called.
    """
    found = _found(model)
    if found is None or model._compiled_call_impl is found.call:  # nothing to fold, or inside already
        yield
        return
    found.refresh(model)
    with speed.standing_in(model, found.call):
        yield


def settled(model: nn.Module) -> nn.Module:
    """What computes as `model` does, in eval mode, whose weights will not move any more: `model` itself, or where wide
    convolutions make it worth while, on a CPU, a network that is quicker and rounds otherwise."""
    how, device = speed.of(model), _first(model).device.type
    if not (how.fold and how.minimal_filters and device == "cpu" and any(map(winograd.fits, model.modules()))):
        return model
    names = pairs(model)
    if not names:
        return model
    found = Folded(model, names, None, 0, shared=True)
    found.refresh(model)
    for conv in found.network.modules() if how.channels_last and in_place.fits(model) else ():
        if isinstance(conv, nn.Conv2d):
            weight = conv.weight.contiguous(memory_format=torch.channels_last)
            conv.weight = nn.Parameter(weight, requires_grad=False)  # `model`'s own stays as it lies
    return found.network


def _found(model: nn.Module) -> Folded | None:
    """The copy of `model` for the precision that its convolutions would now be computed in."""
    device = _first(model).device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    kept = _FOLDED.setdefault(model, {})
    known = kept.get(dtype)
    if dtype not in kept or (known is not None and known.form != form(model)):
        names = pairs(model)
        kept[dtype] = Folded(model, names, dtype, speed.of(model).compile_for) if names else None
    return kept[dtype]
