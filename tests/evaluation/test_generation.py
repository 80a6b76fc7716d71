"""Samples in an evaluation: controls beside every figure, nothing filtered, nothing redone."""

import io

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

import cembench.evaluation.measures.reference as reference
import cembench.evaluation.measures.sample_scores as scoring
import cembench.evaluation.measures.samples as generation
from cembench.data.digits import Digits
from cembench.data.store.memory import MemoryStore
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.extractors import extractors
from cembench.evaluation.extractors.features import FeatureReader, cache_folder, to_uint8
from cembench.evaluation.extractors.lite import Lite0
from cembench.evaluation.measures.reference_classifier import (
    fit_reference_classifier,
    reference_classifier,
)
from cembench.evaluation.protocol import load_protocol
from cembench.models.classifier import Classifier
from cembench.models.metadata import read_metadata
from cembench.reporting.leaderboard import build_boards
from cembench.samplers.trajectory import Trace
from cembench.util.errors import CembenchError
from cembench.util.files import locks
from cembench.util.files.layout import RunLayout
from cembench.util.files.locks import locked
from cembench.util.files.parquet import read_frame
from tests.conftest import NOTHING

SAMPLES = (
    "samples={count: 60, batch_size: 25, samplers: [{name: rcs, steps: 3}, {name: ta, steps: 3}]}"
)
OVERRIDES = [*NOTHING, SAMPLES]
CPU = torch.device("cpu")
SMALL = "samples.extractor={name: lite0, size: 32}"  # a quarter of the arithmetic
ONE_STEP = "samples.samplers=[{name: rcs, steps: 1}]"


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    """Fit the judge on a part of its images: most tests do not look at what it says."""
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 300)


@pytest.fixture
def quick_features(monkeypatch, tmp_path):
    """Features that no network made, in a cache of their own: for tests that look at no score."""

    def embed(images):
        features = images[:, 0].float().flatten(1) / 255
        return features, features

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Lite0, "build", lambda *_: embed)


def protocol(*more):
    return load_protocol("quick", [*OVERRIDES, *more], limit=20)


def test_every_figure_stands_beside_its_controls(copy):
    record, _ = evaluate(copy, protocol())
    found = record.generation
    assert (found.extractor, found.count, found.reference) == ("lite0@64", 60, "test")
    assert (
        list(found.samplers) == ["rcs-gaussian", "ta-gaussian"]
        and len(found.extractor_sha256) == 64
    )
    rcs, ta = found.samplers.values()
    assert rcs.seeds == ta.seeds and rcs.samples != ta.samples
    assert rcs.gain == pytest.approx(rcs.seeds.kid - rcs.samples.kid)
    assert rcs.gain_low < rcs.gain < rcs.gain_high
    assert abs(found.floor.kid) < 4 * found.floor.kid_error and found.floor.kid < rcs.samples.kid
    assert found.floor.fd < rcs.samples.fd and 0.5 < found.judge_real_acc <= 1
    assert rcs.samples.nearest > 0 and found.nearest_real > 0
    assert any("FD-lite0@64 is biased: 60 images" in text for text in record.warnings)


def test_noise_scores_worse_than_seeds_and_a_step_of_nothing_changes_nothing(copy):
    still, far = "{name: rcs, steps: 1, step_size: 1e-9}", "{name: rcs, steps: 1, start: noise}"
    plan = protocol(f"samples.samplers=[{still}, {far}]")
    seeds, noise = evaluate(copy, plan)[0].generation.samplers.values()
    assert seeds.samples == seeds.seeds and seeds.gain == 0
    assert noise.seeds.kid > 5 * seeds.seeds.kid and noise.start == "noise"


@pytest.mark.usefixtures("quick_features")
def test_a_killed_evaluation_goes_on_with_the_next_chunk(copy, monkeypatch):
    straight, _ = evaluate(copy, protocol(SMALL))
    (copy.parent / "eval").rename(copy.parent / "first")
    draw, done = generation.draw, []

    def counted(*args, **options):
        if len(done) == 2:
            done.append(None)
            raise KeyboardInterrupt
        done.append(1)
        return draw(*args, **options)

    monkeypatch.setattr(generation, "draw", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(copy, protocol(SMALL))
    resumed, path = evaluate(copy, protocol(SMALL))
    assert done.count(1) == 6 and resumed.generation == straight.generation
    assert not list(path.parent.glob(".*"))


def test_pictures_show_starts_samples_and_nearest_and_saved_samples_are_all_of_them(copy):
    record, path = evaluate(copy, protocol(SMALL), save_samples=True)
    folder = path.parent.parent / "samples"
    names = sorted(p.name for p in folder.glob("*.png"))
    grids = [f"{path.stem}-{title}.png" for title in record.generation.samplers]
    assert [name for name in names if "trajectory" not in name] == grids
    with Image.open(folder / names[0]) as image:
        assert image.width > 700
    parts = [load_file(p) for p in (folder / path.stem).glob("rcs-gaussian.*.safetensors")]
    assert sum(len(p["labels"]) for p in parts) == 60
    assert {p["images"].dtype for p in parts} == {torch.uint8}
    assert torch.cat([p["labels"] for p in parts]).bincount().tolist() == [6] * 10


def test_a_strip_shows_how_the_first_chains_of_the_samples_move(copy, monkeypatch):
    seen = []
    strip = Trace._strip
    monkeypatch.setattr(Trace, "_strip", lambda trace, c: seen.append(trace) or strip(trace, c))
    pgd = "samples.samplers=[{name: rcs, steps: 3}, {name: pgd, steps: 3}]"
    _, path = evaluate(copy, protocol(pgd, SMALL), save_samples=True)
    folder = RunLayout.samples(path)
    assert RunLayout.trajectory(path, "rcs-gaussian").read_bytes()[:4] == b"\x89PNG"
    assert not RunLayout.trajectory(path, "pgd-data").exists()
    (trace,) = seen
    kept = load_file(folder / "rcs-gaussian.0.safetensors")
    assert torch.equal(to_uint8(trace.images[0]), kept["starts"][:10])
    assert len(trace.images) == 4 and torch.equal(to_uint8(trace.images[-1]), kept["images"][:10])


def test_a_sampler_that_fails_is_an_error_and_not_a_score(copy):
    wild = "{name: cs, direction: raw, step_size: 1e37, start: noise, box: false}"
    plan = f"samples.samplers=[{{name: sgld}}, {wild}, {{name: rcs, steps: 1}}]"
    record, _ = evaluate(copy, protocol(plan, SMALL))
    buffer, diverged, fine = record.generation.samplers.values()
    assert "no replay buffer" in buffer.error and "step_size, which is 1e+37" in diverged.error
    assert buffer.samples is None and diverged.gain is None and fine.error is None
    strips = [path.name for path in copy.parent.glob("samples/*.trajectory.png")]
    assert len(strips) == 1 and "rcs" in strips[0]


@pytest.mark.usefixtures("quick_features")
def test_validation_images_are_those_that_training_held_out(copy):
    metadata = read_metadata(copy)
    held = metadata.training_split()[1]
    record, _ = evaluate(copy, protocol("split=validation", SMALL))
    assert record.split == record.generation.reference == "validation"
    assert record.figures["clean"].images == 20 and len(held) == 120
    other, _ = evaluate(copy, protocol(SMALL))
    prints = {r.generation.reference_fingerprint for r in (record, other)}
    assert len(prints) == 2


def test_reference_features_are_cached_by_content_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reader = FeatureReader(extractors.parse("lite0"), CPU)
    images = torch.randint(0, 256, (6, 1, 8, 8)).byte()
    before = set(cache_folder().glob("*"))
    first = reader.reference(MemoryStore(images))
    (file,) = set(cache_folder().glob("*")) - before
    stamp = file.stat().st_mtime_ns
    assert torch.equal(reader.reference(MemoryStore(images.clone())).pool, first.pool)
    assert file.stat().st_mtime_ns == stamp
    assert not torch.equal(reader.reference(MemoryStore(255 - images)).pool, first.pool)
    other = FeatureReader(extractors.parse({"name": "lite0", "size": 96}), CPU)
    assert not torch.equal(other.reference(MemoryStore(images)).pool, first.pool)
    file.write_bytes(b"half a file")
    assert torch.equal(reader.reference(MemoryStore(images)).pool, first.pool)


def test_the_judge_is_the_same_on_a_machine_that_rounds_otherwise():
    generator = torch.Generator().manual_seed(0)
    values, labels = torch.rand(400, 1280, generator=generator), torch.arange(400) % 10
    rounding = 1 + 1e-6 * torch.randn(values.shape, generator=generator)
    here, there = (
        fit_reference_classifier(torch.nn.functional.normalize(features), labels).coef_
        for features in (values, values * rounding)
    )
    assert abs(here - there).max() < 1e-4 * abs(here).max()


def test_the_judge_is_fitted_once_for_the_same_features_and_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3 + 1
    first = reference_classifier(values, labels)
    (file,) = cache_folder().iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(LogisticRegression, "fit", None)
        again = reference_classifier(values, labels)
        for changed in ((values + 1, labels), (values, labels.flip(0))):
            with pytest.raises(TypeError):
                reference_classifier(*changed)
    assert (again.predict(values) == first.predict(values)).all()
    assert (again.coef_ == first.coef_).all() and set(again.classes_) == {1, 2, 3}
    file.write_bytes(file.read_bytes()[:-8])
    assert (reference_classifier(values, labels).coef_ == first.coef_).all()


def test_a_cache_that_cannot_be_written_costs_time_alone(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reader = FeatureReader(extractors.parse("lite0"), CPU)
    assert len(reader.reference(MemoryStore(torch.zeros(3, 1, 8, 8).byte()))) == 3
    assert len(reference_classifier(torch.eye(3), torch.arange(3)).classes_) == 3


def test_features_do_not_depend_on_the_batch_and_grey_is_colour_in_three_channels():
    reader = FeatureReader(extractors.parse("lite0"), CPU)
    grey = torch.randint(0, 256, (9, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    whole, parts = (
        reader.read(MemoryStore(grey)),
        [reader.read(MemoryStore(p)) for p in grey.split(2)],
    )
    joined = torch.cat([part.pool for part in parts])
    torch.testing.assert_close(whole.pool, joined, rtol=1e-4, atol=1e-4)
    assert torch.equal(whole.pool, reader.read(MemoryStore(grey.expand(-1, 3, -1, -1))).pool)
    assert whole.pool.shape == (9, 1280) and whole.logits.shape == (9, 1000)
    with pytest.raises(CembenchError, match="images of 2 channels"):
        reader.read(MemoryStore(torch.zeros(1, 2, 8, 8).byte()))


def test_real_and_generated_images_are_rounded_alike():
    values = torch.tensor([-1.0, 0.0, 0.5 / 255, 1.5 / 255, 7 / 16, 1.0, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 2, 112, 255, 255]


@pytest.fixture
def inception_weights(tmp_path, monkeypatch):
    """A file in the format of the real one, with random weights."""
    empty, file = tmp_path / "empty.pth", tmp_path / "weights.pth"
    torch.save({}, empty)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(empty))
    torch.save(net.state_dict(), file)
    return file


def test_inception_reads_a_local_file(copy, inception_weights, monkeypatch):
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 30)
    # Its convolutions take any size; 299 is that of the published weights.
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 96)
    plan = ["samples={count: 20, extractor: inception, samplers: [{name: rcs, steps: 1}]}"]
    record, _ = evaluate(copy, protocol(*plan), inception_weights=inception_weights)
    assert record.generation.extractor == "inception"
    assert record.generation.samplers["rcs-gaussian"].samples.fd > 0


def test_inception_without_its_weights_says_what_to_get(cembench, copy, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    args = ("eval", copy, "--limit", 20, "--set", "samples.extractor=inception")
    for more, message in (
        ((), "weights-inception-2015-12-05-6726825d.pth and pass it with --inception-weights FILE"),
        ((), "use the extractor lite0, which works offline"),
        (("--inception-weights", tmp_path / "none"), "no such file"),
    ):
        result = cembench(*args, *more)
        assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1


def test_a_pickle_or_other_file_is_not_taken_for_weights(copy, tmp_path):
    plan = protocol("samples.extractor=inception")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    stream = io.BytesIO()
    torch.save(Evil(), stream)
    for content in (stream.getvalue(), b"", b"nonsense"):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(CembenchError, match="not the weights of"):
            evaluate(copy, plan, inception_weights=tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("samples.extractor=lite1", "unknown extractor 'lite1'; did you mean 'lite2'"),
        ("samples.samplers=[rcx]", "unknown sampler 'rcx'; did you mean"),
        ("samples.samplers=[rcs, rcs]", "two samplers are 'rcs-gaussian'"),
        ("samples.samplers=[]", "samplers"),
        ("samples.count=5", "20"),
        ("samples.cuont=50", "did you mean 'count'"),
        ("density.outside=[imagenot]", "unknown data set 'imagenot'"),
    ],
)
def test_mistakes_in_a_plan_are_one_line(cembench, copy, change, message):
    change = [change] if change.startswith("samples") else [change, "samples=null"]
    settings = [value for text in change for value in ("--set", text)]
    result = cembench("eval", copy, "--limit", 20, *settings)
    assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1


def test_energies_calibration_and_pushes_are_recounted_from_the_table(copy):
    plan = load_protocol("quick", [*NOTHING, "density={steps: 5}"], limit=100)
    record, path = evaluate(copy, plan)
    table, density = read_frame(path.with_suffix(".parquet")), record.density
    assert density.energies["clean"].mean == pytest.approx(table["clean_lse"].mean(), rel=1e-5)
    assert set(density.energies) == {"clean", "pgd", "ta", "noise"}
    pgd, ta = density.pushed["pgd"], density.pushed["ta"]
    assert pgd.accuracy.correct == (table["pgd_ball_pred"] == table["label"]).sum()
    assert pgd.accuracy.correct < record.figures["clean"].correct
    change = (table["ta_ball_lse"] - table["clean_lse"]).mean()
    assert ta.lse_change == pytest.approx(change, rel=1e-4)
    assert sum(row.images for row in density.calibration.bins) == 100
    assert set(density.outside["noise"]) == {"log_px", "max_softmax", "slope"}
    assert set(record.figures) == {"clean"}


def test_other_data_sets_are_fitted_to_the_network(copy, tmp_path):
    for split in ("train", "test"):
        for name, shade in (("a", 10), ("b", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (12, 12), (shade,) * 3).save(tmp_path / split / name / "0.png")
    outside = f"density={{outside: [noise, {{name: folder, root: {tmp_path}, alias: grey}}]}}"
    record, _ = evaluate(copy, load_protocol("quick", [*NOTHING, outside], 20))
    assert set(record.density.outside) == {"noise", "grey"}
    assert record.density.energies["grey"].images == 2


@pytest.mark.usefixtures("quick_features")
def test_the_training_split_can_be_the_reference_and_the_judge_never_saw_it(copy):
    plan = protocol("samples.reference=train", "samples.count=null", ONE_STEP, SMALL)
    record, _ = evaluate(copy, plan)
    found = record.generation
    assert found.reference == "train" and found.count == 1080 and found.floor is None
    assert found.judge_real_acc < 1 and any("no real-against-real" in w for w in record.warnings)
    boards = build_boards([record])
    assert any("samples-gaussian-train" in board.stem for board in boards)
    assert all("–" not in board.stem and board.markdown() for board in boards)


@pytest.mark.usefixtures("quick_features")
def test_a_reference_smaller_than_asked_for_is_used_whole_and_said(copy):
    record, _ = evaluate(copy, protocol("samples.count=9999", ONE_STEP, SMALL))
    assert record.generation.count == 597
    assert any("only 597 of 9999" in warning for warning in record.warnings)


def test_samples_and_their_seeds_are_in_the_energy_table(copy):
    record, _ = evaluate(copy, protocol("density={steps: 2, outside: []}", SMALL))
    energies, rcs = record.density.energies, record.generation.samplers["rcs-gaussian"]
    assert {"clean", "pgd", "ta", "noise", "rcs-gaussian", "rcs-gaussian seeds"} < set(energies)
    assert energies["rcs-gaussian"].mean == rcs.lse > energies["rcs-gaussian seeds"].mean
    assert record.density.outside == {}


def test_other_training_images_are_refused(copy, monkeypatch):
    def fewer(self, split):
        whole = load(self, split)
        return whole if split == "test" else whole.take(torch.arange(900))

    load = Digits.load
    monkeypatch.setattr(Digits, "load", fewer)
    with pytest.raises(CembenchError, match="not those that the network was trained on"):
        evaluate(copy, protocol())


def test_samplers_in_a_ball_take_the_protocols_radius(copy):
    plan = ["samples.samplers=[{name: pgd, steps: 3}]", "threat.eps=0.03"]
    record, path = evaluate(copy, protocol(*plan, SMALL), save_samples=True)
    assert record.generation.samplers["pgd-data"].ball == "linf-0.03"
    parts = [load_file(p) for p in (path.parent.parent / "samples" / path.stem).iterdir()]
    moved = [(p["images"].int() - p["starts"].int()).abs().max() for p in parts]
    assert 0 < max(moved) <= round(0.03 * 255) + 1


def test_a_full_disk_is_an_error_and_not_a_samplers_result(copy, monkeypatch):
    def full(*_):
        raise CembenchError("cannot write x: No space left on device; free some space")

    monkeypatch.setattr(scoring, "write_bytes", full)
    with pytest.raises(CembenchError, match="free some space"):
        evaluate(copy, protocol(SMALL))
    monkeypatch.undo()
    assert evaluate(copy, protocol(SMALL))[0].generation.samplers["rcs-gaussian"].error is None


def test_a_network_that_is_nan_outside_the_data_gets_an_error_record(copy, monkeypatch):
    forward = Classifier.forward

    def nan_on_noise(self, x):
        out = forward(self, x)
        rough = (x[:, :, 0, 0] * 16 % 1).abs().amax(1) > 1e-6
        return torch.where(rough[:, None] & (x.mean((1, 2, 3)) > 0.45)[:, None], torch.nan, out)

    monkeypatch.setattr(Classifier, "forward", nan_on_noise)
    plan = load_protocol("quick", [*NOTHING, "density={steps: 1}"], limit=40)
    record, _ = evaluate(copy, plan)
    assert "not finite" in record.error and record.figures == {} and record.density is None


@pytest.mark.usefixtures("quick_features")
def test_two_evaluations_of_one_record_do_not_mix(copy, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    plan = protocol(SMALL)
    first, path = evaluate(copy, plan)
    with locked(path.with_name(f".{path.name}.lock"), "the other one"):
        with pytest.raises(CembenchError, match="another process is at it"):
            evaluate(copy, plan)
        other, _ = evaluate(copy, protocol("seed=1", SMALL))
        assert other.generation.count == first.generation.count
    assert evaluate(copy, plan)[0].generation == first.generation
