"""How far samples are from real images in the plainest way: the mean images' distance.

cembench eval CHECKPOINT --set 'samples.metrics=[pixel-distance]' --plugin pixel_distance
"""

from typing import ClassVar, Literal

from cembench.evaluation.metrics import Metric, metrics


@metrics.register
class PixelDistance(Metric):
    """The root mean squared difference of the two mean images, in pixels on [0, 1].

    Samples that are all of one class, or too dark, are found without any network.
    """

    name: ClassVar[str] = "pixel-distance"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def measure(self, samples, real):
        """Compare the bytes; features and labels would be there too."""
        fake, true = (pool.images.float().mean(0) / 255 for pool in (samples, real))
        return (fake - true).square().mean().sqrt()
