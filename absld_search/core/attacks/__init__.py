"""Attacks as functions. Inputs in [0, 1]; a radius may be one number or one per sample."""

from absld_search.core.attacks.linf import LossFn, frozen_batch_norm, per_sample, pgd, start_noise

__all__ = ["LossFn", "frozen_batch_norm", "per_sample", "pgd", "start_noise"]
