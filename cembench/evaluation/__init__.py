"""What is measured on a checkpoint; each measurement ends in a record."""
