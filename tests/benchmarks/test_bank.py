"""What a look-up allocates is counted whole: the answer, and what the comparison of the views takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from absld_search.core.logit_blocks import Block, write
from benchmarks import bank


def test_a_look_up_allocates_its_answer_and_little_more(tmp_path: Path) -> None:
    kept = bank.bank(tmp_path)
    logits = np.zeros((bank.IMAGES, bank.CLASSES), dtype=np.float32)
    write(tmp_path / "stream-0" / "epoch-00001.arrow", Block(kept._keys_of(1), logits))
    seen = bank.batches(kept)
    kept.clean_logits(seen[0])  # the block is mapped, places of images are worked out
    answer, before = 4 * bank.BATCH * bank.CLASSES, bank.copied()
    assert answer < bank.peak(kept, seen[1]) < 4 * answer
    assert bank.copied() == before, "nothing of the block itself"
