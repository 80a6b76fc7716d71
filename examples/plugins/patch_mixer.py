"""An MLP-Mixer (Tolstikhin et al., arXiv 2105.01601) of one block, for small images.

cembench train CONFIG --set model=patch-mixer --plugin patch_mixer
"""

from typing import ClassVar

from torch import nn

from cembench.models import ModelSettings, models
from cembench.models.blocks import Network
from cembench.util.settings import Count


class Mixer(Network):
    """`features` and `head` are what probes and encoders need; a bare module is enough else."""

    def __init__(self, settings, shape, classes):
        super().__init__()
        channels, height, width = shape
        side, wide = settings.patch, settings.width
        patches = (height // side) * (width // side)
        self.patches = nn.Conv2d(channels, wide, side, side)
        self.across = nn.Sequential(nn.Linear(patches, wide), nn.GELU(), nn.Linear(wide, patches))
        self.within = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, wide), nn.GELU())
        self.head = nn.Linear(wide, classes)

    def features(self, x):
        """Return N×width features."""
        tokens = self.patches(x).flatten(2)
        tokens = tokens + self.across(tokens)
        return self.within(tokens.transpose(1, 2)).mean(1)


@models.register
class PatchMixer(ModelSettings):
    """Patches of `patch`×`patch` pixels, each told by `width` numbers."""

    name: ClassVar[str] = "patch-mixer"
    patch: Count = 2
    width: Count = 64

    def build(self, shape, classes):
        """Build the network."""
        return Mixer(self, shape, classes)
