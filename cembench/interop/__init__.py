"""Import of networks trained elsewhere, and export of checkpoints for other tools."""
