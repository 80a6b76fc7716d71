"""The version of cembench; importing it imports nothing else."""

__version__ = "0.1.0"
