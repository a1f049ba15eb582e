"""A network that writes its activations over those that nobody reads any more: the same bits, less memory to move.

For networks of this project and of PyTorch's modules alone: what a symbol cannot see in others' forward passes, such as
a gradient of their own, a tensor made on the way or a hook, would be lost in the rewriting.

Where a ReLU or a sum follows a convolution or a batch norm that it alone reads, its result takes the place of what it
reads (in-place operation: Chen et al., 2016, arXiv:1604.06174, section 3). Autograd allows it: the gradients of all
of these need no output of theirs but the ReLU's own. And where a convolution alone reads a ReLU, the ReLU's gradient
takes the place of what that convolution gave.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

OURS = ("torch", "absld_search")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAKERS = (*CONVOLUTIONS, *NORMS)  # of outputs that no gradient needs
RELUS = (F.relu, torch.relu)
SUMS = (operator.add, torch.add)


def hooked(module: nn.Module) -> bool:
    """Whether somebody listens to `module` or changes what it does."""
    return any(getattr(module, kind) for kind in HOOKS)


def fits(network: nn.Module) -> bool:
    """Whether a symbol sees all that `network` does."""
    return all(type(m).__module__.split(".")[0] in OURS and not hooked(m) for m in network.modules())


def rewritten(network: nn.Module) -> nn.Module:
    """`network` in eval mode, with its own parameters and their names, writing in place where it may.

    It `fits`, and a symbol can follow it, see `folding.pairs`. The result can be copied and not pickled.
    """
    graph = fx.Tracer().trace(network)
    free: set[fx.Node] = set()  # tensors that whoever reads them alone may write over
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        alone = isinstance(first, fx.Node) and first in free and len(first.users) == 1
        if _is(network, node, MAKERS) or (alone and (_is(network, node, (nn.Identity,)) or _summed(node))):
            free.add(node)
        elif alone and (node.target in RELUS or _is(network, node, (nn.ReLU,))):
            (*readers,) = node.users
            once = len(readers) == 1 and _is(network, readers[0], CONVOLUTIONS)
            node.op, node.target, node.args, node.kwargs = "call_function", relu_once if once else F.relu_, (first,), {}
    return fx.GraphModule(network, graph)


def _is(network: nn.Module, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
    return node.op == "call_module" and type(network.get_submodule(str(node.target))) in kinds


def _summed(node: fx.Node) -> bool:
    """Let a sum of two tensors be written over the first of them; False where `node` is none."""
    if node.target not in SUMS or node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
        return False
    if node.args[0] is node.args[1]:
        return False
    node.target = _add
    return True


class _Relu(torch.autograd.Function):
    """ReLU in the place of its input, its gradient in the place of what the one reader of its output gave."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x.relu_())
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will want the gradient's own gradient
            return torch.ops.aten.threshold_backward(gradient, result, 0)
        return torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=gradient)


def relu_once(x: Tensor) -> Tensor:
    """ReLU of `x`, in its place, for one reader who makes a new gradient."""
    found: Tensor = _Relu.apply(x)
    return found


def _add(mine: Tensor, other: Tensor) -> Tensor:
    """`mine` + `other`, in the place of `mine` where that has room for it."""
    if mine.shape == other.shape and mine.dtype == other.dtype:
        return mine.add_(other)
    return mine + other
