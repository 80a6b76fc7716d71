"""The TF Inception of the FID and IS papers, as torch-fidelity converted it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

from cembench.evaluation.extractors import Embed, Extractor
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor

CHECKSUM = "6726825d"
FILE = f"weights-inception-2015-12-05-{CHECKSUM}.pth"


class Inception(Extractor):
    """2048 pooled features and 1008 unbiased logits: figures comparable with papers."""

    name: ClassVar[str] = "inception"

    def weights(self, given: Path | None) -> Path:
        """Return the given file, or the one in torch's cache, downloaded if it is not there."""
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        path = given or Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if path.exists():
            return path
        remedy = f"get {URL_INCEPTION_V3} and pass it with --inception-weights FILE"
        if given is not None:
            raise CembenchError(f"{given}: no such file; {remedy}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), CHECKSUM, progress=False)
        except (OSError, RuntimeError) as error:
            raise CembenchError(
                f"the Inception weights cannot be downloaded ({error}); {remedy}, or use the "
                "extractor lite0, which works offline"
            ) from error
        return path

    def cautions(self, checksum: str) -> list[str]:
        """Doubt weights of another checksum."""
        known = checksum.startswith(CHECKSUM)
        return [] if known else ["the weights are not those of the TF Inception of papers"]

    def build(self, weights: Path, device: torch.device) -> Embed:
        """Return the embedding."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            torch.load(weights, weights_only=True)  # torch-fidelity unpickles without this guard
            net = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=str(weights),
            )
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError) as error:
            reason = (str(error).splitlines() or ["damaged"])[0]
            raise CembenchError(f"{weights}: not the weights of {FILE} ({reason})") from error
        net = net.to(device)

        def embed(images: Tensor) -> tuple[Tensor, Tensor]:
            features, logits = net(images)
            return features, logits

        return embed
