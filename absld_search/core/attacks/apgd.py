"""Auto-PGD, untargeted and targeted, with fooled images taken out of the batch while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from absld_search.core.attacks.base import Draws, Radius, box, radii, right
from absld_search.core.losses import cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (B, C), labels (B,), targets (B,) -> (B,), to ascend
RHO = 0.75  # a step is halved unless this share of the steps since the last check made the loss larger
MOMENTUM = 0.75  # share of the new step against the one before


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The difference-of-logits ratio: minus the right logit's lead, over the gap between first and third: (B,).

    Differs from the released code: with two classes, where that one fails, the lead itself.
    """
    ordered = logits.sort(dim=1).values
    at = logits.gather(1, y[:, None])[:, 0]
    first = logits.argmax(1) == y
    rival = torch.where(first, ordered[:, -2], ordered[:, -1])
    return -(at - rival) / _gap(ordered, 3)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The targeted ratio: minus the right logit's lead over the target's, over the gap between the first and the mean
    of third and fourth: (B,).

    Differs from the released code, which needs four classes: with three the gap is that between first and third, with
    two the lead stays as it is.
    """
    rows = torch.arange(len(y), device=y.device)
    return -(logits[rows, y] - logits[rows, target]) / _gap(logits.sort(dim=1).values, 4)


def _gap(ordered: Tensor, last: int) -> Tensor | float:
    """The largest logit less the mean of the third and the `last` largest, of those (B, C) in rising order: (B,).

    Where there is no fourth the third stands for it. With two classes there is nothing to compare a lead with: over
    itself it would be constant, and so without a gradient.
    """
    num_classes = ordered.shape[1]
    if num_classes < 3:
        return 1.0
    return ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -min(last, num_classes)]) + 1e-12


@dataclass
class _State:
    """What the images that still stand carry from step to step; every field is (b, ...), in the same order."""

    row: Tensor  # which image of the batch
    y: Tensor
    target: Tensor
    low: Tensor
    high: Tensor
    x: Tensor  # current iterate
    before: Tensor  # the one before
    gradient: Tensor
    best_x: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor
    last_loss: Tensor
    rises: Tensor  # steps since the last check at which the loss rose
    checked_loss: Tensor  # best loss at the last check
    halved: Tensor  # whether the last check halved the step

    def keep(self, standing: Tensor) -> None:
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name)[standing])


def maximise(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, radius: Tensor, start: Tensor, loss: Loss, num_steps: int
) -> tuple[Tensor, Tensor]:
    """APGD from `start`: for each image the first iterate that fools the model, or `x`; and which are fooled (B,).

    Croce and Hein, ICML 2020, arXiv:2003.01690: steps with momentum, of twice the radius at first; at checkpoints
    that come ever closer, the step is halved, and the best point returned to, for images whose loss rose too
    rarely or whose best loss has not risen since.

    Differs from the released code: an image leaves the batch once an iterate fools the model, which changes no verdict,
    and the last iterate's gradient, which nothing uses, is not computed.
    """
    found = x.clone()
    state = _begin(model, x, y, target, radius, start, loss, found)
    window, since = max(int(0.22 * num_steps), 1), 0
    shortest, shrink = max(int(0.06 * num_steps), 1), max(int(0.03 * num_steps), 1)
    for number in range(num_steps):
        if not len(state.row):
            break
        _move(state, share=MOMENTUM if number else 1.0)
        _look(model, state, loss, found, last=number == num_steps - 1)
        since += 1
        if since == window:
            _check(state, window)
            window, since = max(window - shrink, shortest), 0
    fooled = torch.ones(len(x), dtype=torch.bool, device=x.device)
    fooled[state.row] = False
    return found, fooled


def _begin(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, radius: Tensor, start: Tensor, loss: Loss, found: Tensor
) -> _State:
    values, gradient, standing = _ask(model, start, y, target, loss)
    none, yes = torch.zeros_like(values), torch.ones_like(standing)
    low, high = box(x, radius)
    state = _State(
        torch.arange(len(x), device=x.device), y, target, low, high, start, start, gradient, start, gradient,
        values, 2 * radius, none, none, values, yes,
    )  # fmt: skip
    _drop(state, standing, found)
    return state


def _ask(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, loss: Loss, last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (b,), its gradient as x, whether the model is still right (b,)); no gradient at the last iterate."""
    x = x.detach().requires_grad_(not last)
    with torch.set_grad_enabled(not last):
        logits = model(x)
        values = loss(logits, y, target)
    gradient = x if last else torch.autograd.grad(values.sum(), x)[0]
    return values.detach(), gradient.detach(), logits.detach().argmax(1) == y


def _move(state: _State, share: float) -> None:
    """A step along the gradient's sign, mixed with the step before; both stay in the ball."""
    # The order of the sums is the released code's: another one would round otherwise, and flip a verdict in thousands.
    ahead = (state.x + state.step * state.gradient.sign()).clamp(state.low, state.high)
    drift = state.x - state.before
    mixed = state.x + (ahead - state.x) * share + drift * (1 - share)
    state.before, state.x = state.x, mixed.clamp(state.low, state.high)


def _look(model: nn.Module, state: _State, loss: Loss, found: Tensor, last: bool) -> None:
    """Loss and gradient where the images are now; remember the best; let those go that are fooled."""
    values, state.gradient, standing = _ask(model, state.x, state.y, state.target, loss, last)
    state.rises = state.rises + (values > state.last_loss)
    better = values > state.best_loss
    wide = better.view(-1, *[1] * (state.x.ndim - 1))
    state.best_x = torch.where(wide, state.x, state.best_x)
    state.best_gradient = torch.where(wide, state.gradient, state.best_gradient)
    state.best_loss = torch.where(better, values, state.best_loss)
    state.last_loss = values
    _drop(state, standing, found)


def _drop(state: _State, standing: Tensor, found: Tensor) -> None:
    if not standing.all():
        found[state.row[~standing]] = state.x[~standing]
        state.keep(standing)


def _check(state: _State, window: int) -> None:
    """Halve the steps of images that made too little of the last `window` steps, and put them back at their best."""
    stuck = ~state.halved & (state.checked_loss >= state.best_loss)
    halve = (state.rises <= window * RHO) | stuck
    wide = halve.view(-1, *[1] * (state.x.ndim - 1))
    state.step = torch.where(wide, state.step / 2, state.step)
    state.x = torch.where(wide, state.best_x, state.x)
    state.gradient = torch.where(wide, state.best_gradient, state.gradient)
    state.halved, state.checked_loss = halve, state.best_loss
    state.rises = torch.zeros_like(state.rises)


def _start(x: Tensor, radius: Tensor, draws: Draws, rows: Tensor, number: int) -> Tensor:
    """A random point on the ball's surface: uniform noise, stretched until its largest entry is the radius."""
    noise = 2 * draws.per_image(rows, x.shape[1:], number).to(x) - 1
    largest = noise.abs().flatten(1).amax(1).view(-1, *[1] * (x.ndim - 1))
    return (x + radius * (noise / (largest + 1e-12))).clamp(0, 1)


@dataclass(frozen=True)
class Apgd:
    """APGD on the cross-entropy ("ce") or the difference-of-logits ratio ("dlr"), from a random start."""

    num_steps: int = 100
    restarts: int = 1
    loss: str = "ce"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        chosen = {"ce": cross_entropy, "dlr": dlr}[self.loss]
        x, found, radius = x.detach(), x.detach().clone(), radii(eps, x)
        left = torch.nonzero(right(model, x, y))[:, 0]
        for number in range(self.restarts):
            if not len(left):
                break
            start = _start(x[left], radius[left], draws, left, number)
            where = (x[left], y[left], y[left], radius[left], start)
            found[left], fooled = maximise(
                model, *where, lambda logits, labels, _: chosen(logits, labels), self.num_steps
            )
            left = left[~fooled]
        return found


@dataclass(frozen=True)
class ApgdTargeted:
    """APGD on the targeted ratio, towards each of the `targets` likeliest wrong classes of the clean image in turn.

    Croce and Hein, ICML 2020, arXiv:2003.01690. Differs from the released code, which needs four classes: see
    `targeted_dlr` for what holds with three and two.
    """

    num_steps: int = 100
    targets: int = 9

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        x, found, radius = x.detach(), x.detach().clone(), radii(eps, x)
        ranked = ranked_classes(model, x)
        left = torch.nonzero(ranked[:, 0] == y)[:, 0]
        for place in range(1, min(self.targets, ranked.shape[1] - 1) + 1):
            if not len(left):
                break
            start = _start(x[left], radius[left], draws, left, place)
            where = (x[left], y[left], ranked[left, place], radius[left], start)
            found[left], fooled = maximise(model, *where, targeted_dlr, self.num_steps)
            left = left[~fooled]
        return found


@torch.no_grad()
def ranked_classes(model: nn.Module, x: Tensor) -> Tensor:
    """Each image's classes by falling logit, (B, C); equal ones as the released code puts them."""
    return model(x).sort(dim=1).indices.flip(1)
