"""Networks from elsewhere in, checkpoints for other tools out."""
