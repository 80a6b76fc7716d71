"""Pickles that run code when they are opened, offered as any file that cembench reads."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cembench.data.store.memory import MemoryStore
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.extractors import extractors
from cembench.evaluation.extractors.features import FeatureReader, cache_folder
from cembench.evaluation.protocol import load_protocol
from cembench.training.train import train
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import UNSEALED, seal
from cembench.util.files.yaml import to_yaml
from tests.conftest import NOTHING, experiment
from tests.support.stores import FewDigits

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
PLAN = [*NOTHING, "attacks=[{name: pgd, steps: 3}]"]


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def bombs(path):
    """Return a bomb in every wrapping that Python programs open without a second thought."""
    wrappings = [pickle.dumps(Bomb(path), protocol) for protocol in range(6)]
    for write in (torch.save, lambda bomb, file: np.savez(file, a=np.array([bomb], dtype=object))):
        stream = io.BytesIO()
        write(Bomb(path), stream)
        wrappings.append(stream.getvalue())
    return wrappings


def test_a_bomb_offered_as_any_file_is_never_lit(cembench, copy, tmp_path):
    """As checkpoint, record, table, evidence, resume state: refused in one line."""
    _, kept = evaluate(copy, load_protocol("quick", PLAN, limit=16), save_adversarial=True)
    settings = experiment(data=FewDigits.name, epochs=1)
    train(settings, tmp_path / "c").unlink()
    (tmp_path / "c.yaml").write_text(to_yaml(settings.dump()))
    bomb = tmp_path / "bomb.safetensors"
    places = {
        bomb: (["eval", bomb], ["sample", bomb], ["show", bomb], ["verify", kept, bomb]),
        kept.with_name("bomb.json"): (["show", kept.with_name("bomb.json")],),
        kept.with_suffix(".parquet"): (["compare", kept, kept], ["verify", kept, copy]),
        RunLayout.adversarial(kept) / "pgd.safetensors": (["verify", kept, copy],),
        tmp_path / "c" / "last.ckpt": (
            ["train", tmp_path / "c.yaml", "--out", tmp_path, "--resume"],
        ),
    }
    for path, commands in places.items():
        before = path.read_bytes() if path.exists() else b""
        for content in bombs(tmp_path / "boom"):
            for offered in (content, seal(content + UNSEALED.encode())):
                path.write_bytes(offered)
                for command in commands:
                    result = cembench(*command)
                    assert result.code == 2 and len(result.err.splitlines()) == 1, result.err
        path.write_bytes(before)
    assert not (tmp_path / "boom").exists()


def test_a_bomb_or_damage_in_the_cache_of_features_costs_only_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reader = FeatureReader(extractors.parse({"name": "lite0", "size": 32}), torch.device("cpu"))
    images = torch.randint(0, 255, (4, 1, 8, 8), dtype=torch.uint8)
    right = reader.reference(MemoryStore(images))
    (cached,) = cache_folder().iterdir()
    content = cached.read_bytes()
    save_file({"pool": right.pool + 1, "logits": right.logits}, tmp_path / "others.safetensors")
    wrong = [
        content[:-1] + bytes([content[-1] ^ 1]),
        (tmp_path / "others.safetensors").read_bytes(),
    ]
    for offered in [*bombs(tmp_path / "boom"), *wrong]:
        cached.write_bytes(offered)
        assert torch.equal(reader.reference(MemoryStore(images)).pool, right.pool)
        assert cached.read_bytes() == content
    assert not (tmp_path / "boom").exists()


def test_a_bomb_offered_as_weights_of_an_extractor_is_never_lit(cembench, copy, tmp_path):
    weights = tmp_path / "weights.pth"
    options = ["--set", "samples.extractor=inception", "--limit", 20, "--set", "attacks=[]"]
    for content in bombs(tmp_path / "boom"):
        weights.write_bytes(content)
        result = cembench("eval", copy, *options, "--inception-weights", weights)
        assert result.code == 2 and str(weights) in result.err.splitlines()[-1]
    assert not (tmp_path / "boom").exists()
