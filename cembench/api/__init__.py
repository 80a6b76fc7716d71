"""Functions of cembench for Python: each is what a command calls.

Paths may be given as text. `device` is `auto` (CUDA's GPU where there is one), `cpu`, `cuda`,
`cuda:1`, … or `mps`. What a user can put right is raised as `cembench.util.errors.CembenchError`,
in one line.

Examples:
    >>> import cembench as cb
    >>> tiny = {"data": "digits", "model": {"name": "small_cnn", "width": 8}, "epochs": 2}
    >>> checkpoint = cb.train({**tiny, "method": "at"}, name="tiny")
    >>> checkpoint.as_posix()
    'runs/tiny/model.safetensors'
    >>> model = cb.load(checkpoint)
    >>> model.metadata.threat.eps
    0.125
    >>> samples = cb.sample(model, sampler="rcs", count=20, steps=10)
    >>> tuple(samples.images.shape)
    (20, 1, 8, 8)
    >>> plan = {"attacks": [{"name": "pgd", "steps": 5}, "autoattack"], "limit": 32}
    >>> record = cb.evaluate(checkpoint, protocol=plan)
    >>> figure = record.figures["autoattack"]
    >>> figure.images, 0 <= figure.low <= figure.accuracy <= figure.high <= 1
    (32, True)
    >>> cb.leaderboard([record])[0].stem
    'digits-linf-0.125'

    A network that you built yourself takes images in [0, 1], N×C×H×W, and gives N×K logits:

    >>> from torch import nn
    >>> mine = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> cb.evaluate(mine, "digits", plan | {"limit": 8}, trust_pixels=True).run
    'Sequential'

    So may be the images, with their labels:

    >>> import torch
    >>> x, y = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8), torch.arange(32) % 10
    >>> record = cb.evaluate(mine, (x, y), ["pgd"], threat="linf 8/255", trust_pixels=True)
    >>> record.figures["pgd"].images, str(record.threat)
    (32, 'linf-8/255')

    Any function will do, and is attacked without gradients where it has none:

    >>> def remote(x):  # what a service answers, say
    ...     return mine(x).detach().numpy()
    >>> cb.evaluate(remote, (x, y), attacks=["pgd", "autoattack"], trust_pixels=True).not_applicable
    ['pgd', 'autoattack apgd-ce', 'autoattack apgd-t', 'autoattack fab-t']
"""

from __future__ import annotations

from cembench.api.comparison import check, compare, verify
from cembench.api.evaluation import evaluate
from cembench.api.results import leaderboard, plot, records, report
from cembench.api.sampling import counterfactuals, load, restore, sample
from cembench.api.training import probe, run_suite, train
from cembench.data.corruptions.apply import corrupt
from cembench.data.in_memory import dataset

__all__ = [
    "check",
    "compare",
    "corrupt",
    "counterfactuals",
    "dataset",
    "evaluate",
    "leaderboard",
    "load",
    "plot",
    "probe",
    "records",
    "report",
    "restore",
    "run_suite",
    "sample",
    "train",
    "verify",
]
