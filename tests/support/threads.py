"""Work for another process, which imports this file and little else."""

from __future__ import annotations

from pathlib import Path

import torch


def multiply(file: Path) -> None:
    """Be a worker that needs all threads of its process."""
    (torch.ones(512, 512) @ torch.ones(512, 512)).exp().sum()
    file.write_text(f"{torch.get_num_threads()} threads")
