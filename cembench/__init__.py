"""cembench: how robust a network is and how well it generates, measured on one checkpoint."""

__version__ = "0.1.0"
