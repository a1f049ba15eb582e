"""Model and attack -> per-image outcomes. Never touches training's randomness, and refuses nan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from absld_search.core import attacks, metrics
from absld_search.core.attack_names import ATTACKS, KINDS, LOWEST, SEARCH_ATTACKS, canonical, of_test
from absld_search.core.data import Split
from absld_search.core.verdicts import Store
from absld_search.words import UsageError

__all__ = ["KINDS", "SEARCH_ATTACKS", "NonFiniteLogits", "Outcome", "evaluate", "of_test"]

EVALUATION_SEED = 77_003  # shared by every evaluation of every study: outcomes are paired image by image
CHUNK = 500
AUTOATTACK_CHUNK = 250  # its default; its random numbers depend on it
STEPS = 20  # of the PGD attacks
Progress = Callable[[str, int, int], None]  # (stage, images done, images in all)


class NonFiniteLogits(ArithmeticError):
    """A network whose logits are nan or infinite has no accuracy: argmax would call it class 0."""


@dataclass(frozen=True)
class Outcome:
    """What one attack did to one split: ids, labels and verdicts (N,), in the split's order."""

    attack: str
    ids: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    num_classes: int

    def summary(self) -> dict[str, float]:
        """Accuracy, worst class, worst tenth, CVaR and NSD under this attack's word."""
        return metrics.summary(KINDS[self.attack], self.correct, self.labels, self.num_classes)

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """(accuracy (C,), n (C,)); nan for a class without an image."""
        return metrics.class_accuracies(self.correct, self.labels, self.num_classes)


@dataclass(frozen=True)
class Asked:
    """What an evaluation is about beside the model: radius and step size in pixel units, seed, what else it needs."""

    split: Split
    eps: float
    step_size: float
    seed: int = EVALUATION_SEED
    source: nn.Module | None = None  # whose adversarial examples "transfer" hands over
    store: Store | None = None
    progress: Progress = lambda stage, done, total: None


def evaluate(
    model: nn.Module, split: Split, names: Sequence[str], eps: float, step_size: float, **more: object
) -> list[Outcome]:
    """One outcome for each of the attacks `names` of `attack_names.ATTACKS`; `more` as in `Asked`.

    An image counts as right under an attack where the model is right on it clean and on what each of the attack's
    stages returned. Stages that several attacks share run once. Raises: NonFiniteLogits, UsageError.
    """
    asked = Asked(split, eps, step_size, **more)  # type: ignore[arg-type]
    names = [canonical(name) for name in names]
    with attacks.frozen_batch_norm(model), attacks.inputs_only(model):
        run = _Run(model, asked)
        return [run.outcome(name) for name in names]


@dataclass
class _Run:
    """One evaluation: which images are right after which stages, each worked out once."""

    model: nn.Module
    asked: Asked
    known: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def outcome(self, name: str) -> Outcome:
        split = self.asked.split
        right = self.after(ATTACKS[name].draws, ATTACKS[name].stages).cpu().numpy()
        return Outcome(name, split.ids.cpu().numpy(), split.labels.cpu().numpy(), right, split.num_classes)

    def after(self, draws: str, stages: tuple[str, ...]) -> Tensor:
        """(N,): who is still right after those stages."""
        key = (draws, *stages) if stages else ()
        if key not in self.known:
            self.known[key] = self._attacked(draws, stages) if stages else self._clean()
        return self.known[key]

    def _clean(self) -> Tensor:
        split = self.asked.split
        batches = (split.at(rows) for rows in torch.arange(len(split)).split(CHUNK))
        return torch.cat([self._right(batch.x, batch.y, "clean") for batch in batches])

    def _attacked(self, draws: str, stages: tuple[str, ...]) -> Tensor:
        right = self.after(draws, stages[:-1]).clone()
        rows = torch.nonzero(self._wanted(stages[-1], right))[:, 0].cpu()
        label, done = "+".join((draws, *stages)), 0
        attack = None
        for number, part in enumerate(rows.split(AUTOATTACK_CHUNK if draws == "batch" else CHUNK)):
            verdicts = self.asked.store.get(label, number, part) if self.asked.store else None
            if verdicts is None:
                attack = attack or _STAGES[stages[-1]](self)
                verdicts = self._verdicts(attack, part, draws, label)
                if self.asked.store:
                    self.asked.store.put(label, number, part, verdicts)
            right[part.to(right.device)] = verdicts.to(right.device)
            done += len(part)
            self.asked.progress("+".join(stages), done, len(rows))
        return right

    def _wanted(self, stage: str, right: Tensor) -> Tensor:
        """Whom a stage attacks: all that are right, or those of the lowest classes."""
        if not stage.endswith("-lowest"):
            return right
        labels = self.asked.split.labels
        accuracy, n = metrics.class_accuracies(right.cpu(), labels.cpu(), self.asked.split.num_classes)
        lowest = torch.from_numpy(np.argsort(np.where(n > 0, accuracy, np.inf), kind="stable")[:LOWEST].copy())
        return right & torch.isin(labels, lowest.to(labels.device))

    def _verdicts(self, attack: attacks.Attack, rows: Tensor, draws: str, label: str) -> Tensor:
        x, y, ids, _ = self.asked.split.at(rows)
        seed = self.asked.seed
        drawn = attacks.BatchDraws(seed) if draws == "batch" else attacks.ImageDraws(ids, seed)
        return self._right(attack(self.model, x, y, self.asked.eps, drawn), y, label)

    def _right(self, x: Tensor, y: Tensor, label: str) -> Tensor:
        """(b,): verdicts, always asked anew of the model. Raises: NonFiniteLogits."""
        with torch.no_grad():
            logits = self.model(x)
        if not logits.isfinite().all():
            raise NonFiniteLogits(f"logits under {label}")
        return logits.argmax(1) == y


def _confused(run: _Run) -> attacks.Attack:
    """Towards what this model takes each class of this split for, which is measured once."""
    asked, split = run.asked, run.asked.split
    believed = []
    for rows in torch.arange(len(split)).split(CHUNK):
        x, y, ids, _ = split.at(rows)
        believed.append(attacks.beliefs(run.model, x, y, asked.eps, attacks.ImageDraws(ids, asked.seed)))
    targets = attacks.most_confused(torch.cat(believed), split.labels)
    return attacks.ConfusedPgd(targets, STEPS, asked.step_size)


def _transfer(run: _Run) -> attacks.Attack:
    if run.asked.source is None:
        raise UsageError("attack 'transfer' needs a network whose adversarial examples it hands over.")
    return attacks.Transfer(run.asked.source, attacks.Pgd(STEPS, run.asked.step_size, loss="margin", drop=False))


_STAGES: dict[str, Callable[[_Run], attacks.Attack]] = {
    "fgsm": lambda run: attacks.Fgsm(),
    "pgd20": lambda run: attacks.Pgd(STEPS, run.asked.step_size),
    "pgd20-kl": lambda run: attacks.Pgd(STEPS, run.asked.step_size, loss="kl"),
    "pgd20-gaussian": lambda run: attacks.Pgd(STEPS, run.asked.step_size, start="gaussian"),
    "pgd20-confused": _confused,
    "pgd-sat": lambda run: attacks.PGD_SAT,
    "pgd-trades": lambda run: attacks.pgd_trades(run.asked.eps),
    "cw20": lambda run: attacks.Pgd(STEPS, run.asked.step_size, loss="margin"),
    "transfer": _transfer,
    "apgd-ce": lambda run: attacks.Apgd(),
    "apgd-t": lambda run: attacks.ApgdTargeted(),
    "apgd-t3": lambda run: attacks.ApgdTargeted(targets=3),
    "apgd-t-lowest": lambda run: attacks.ApgdTargeted(),
    "adaptive": lambda run: attacks.Adaptive(),
    "fab-t": lambda run: attacks.FabTargeted(),
    "square": lambda run: attacks.Square(),
}
