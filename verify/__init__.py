"""Do released checkpoints give here what public tests say they give? `python -m verify` (docs/fidelity.md)."""
