"""Attacks as functions. Inputs in [0, 1]; a radius may be one number or one per sample."""

from absld_search.core.attacks.linf import (
    LossFn,
    ascend,
    frozen_batch_norm,
    input_gradient,
    per_sample,
    pgd,
    start_noise,
)

__all__ = ["LossFn", "ascend", "frozen_batch_norm", "input_gradient", "per_sample", "pgd", "start_noise"]
