"""Processes that torchrun started: their group, what they share, and waiting for each other."""
