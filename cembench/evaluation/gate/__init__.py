"""Checkpoints against a baseline: what got worse, by how much, and how sure that is."""
