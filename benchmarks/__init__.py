"""Speed and memory, measured side by side, as ratios of one run. Never part of a test."""
