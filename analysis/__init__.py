"""From the tables of a study to its answer: recomputed numbers, figures, report."""
