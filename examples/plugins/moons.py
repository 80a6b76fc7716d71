"""Two moons as images: a dot at each point of scikit-learn's two half circles.

cembench train CONFIG --set data=moons --plugin moons
"""

from typing import ClassVar

import torch
from sklearn.datasets import make_moons

from cembench.data import DataSettings, datasets
from cembench.data.split import Split
from cembench.util.settings import Count, NonNegative


@datasets.register
class Moons(DataSettings):
    """Which moon a dot lies on; Bayes' classifier is known, up to the noise."""

    name: ClassVar[str] = "moons"
    images: Count = 1000
    size: Count = 12
    noise: NonNegative = 0.05

    def load(self, split):
        """Draw the images: a Gaussian dot of one pixel's width each, uint8 of 1×size×size."""
        state = 0 if split == "train" else 1
        points, labels = make_moons(self.images, noise=self.noise, random_state=state)
        corner, extent = torch.tensor([-1.5, -1.0]), torch.tensor([4.0, 2.5])
        centres = (torch.from_numpy(points).float() - corner) / extent * self.size
        grid = torch.arange(self.size) + 0.5
        x, y = (-(grid - centres[:, i, None]).square() / 2 for i in (0, 1))
        dots = (x[:, None, :] + y[:, :, None]).exp() * 255
        return Split.of(dots[:, None].round().byte(), torch.from_numpy(labels), ("upper", "lower"))
