"""The layout of a run folder: files outlive code, so every name is pinned."""

from pathlib import Path

from cembench.util.files.layout import RunLayout


def test_the_files_of_a_run_have_these_names(tmp_path):
    run = RunLayout.at(tmp_path)
    found = [run.checkpoint, run.config, run.history, run.resume_state, run.buffer, run.log]
    assert run.name == tmp_path.name and [file.relative_to(tmp_path).name for file in found] == [
        "model.safetensors",
        "config.yaml",
        "history.csv",
        "last.ckpt",
        "buffer.safetensors",
        "log.txt",
    ]
    record = run.record("quick-n32")
    assert record == tmp_path / "eval" / "quick-n32.json"
    assert RunLayout.of_record(record) == run
    assert RunLayout.at(run.checkpoint) == run
    names = [
        RunLayout.table(record),
        RunLayout.curve(record),
        RunLayout.adversarial(record),
        RunLayout.samples(record),
        RunLayout.picture(record, "rcs.2"),
        RunLayout.trajectory(record, "rcs.2"),
    ]
    assert [str(path.relative_to(tmp_path)) for path in names] == [
        "eval/quick-n32.parquet",
        "eval/quick-n32.curve.png",
        "eval/quick-n32.adversarial",
        "samples/quick-n32",
        "samples/quick-n32-rcs.2.png",
        "samples/quick-n32-rcs.2.trajectory.png",
    ]


def test_checkpoints_with_names_of_their_own_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "quick.json").touch()
    run = RunLayout.at(folder / "net.safetensors")
    assert run.name == "net" and run.checkpoint == folder / "net.safetensors"
    assert run.buffer == folder / "net.buffer.safetensors"
    assert run.record("quick") == folder / "eval" / "net.quick.json"
    assert run.records() == [folder / "eval" / "quick.json"]
    assert run.records("net.*") == []
    assert RunLayout.records_below(tmp_path) == run.records()


def test_a_run_is_named_after_its_folder_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert RunLayout.at(Path("model.safetensors")).name == "run"
    assert RunLayout.at(Path()).checkpoint == Path("model.safetensors")


def run_in(folder, name):
    (folder / name / "eval").mkdir(parents=True)
    (folder / name / "eval" / "quick.json").touch()
    (folder / name / "model.safetensors").touch()
    return folder / name


def test_links_to_folders_are_followed_once_and_never_up(tmp_path):
    runs, far = tmp_path / "runs", tmp_path / "far"
    own, linked = run_in(runs, "own"), run_in(far, "there")
    (runs / "a-link").symlink_to(linked)
    (runs / "b-link").symlink_to(linked)
    (runs / "again").symlink_to(own)
    (runs / "up").symlink_to(tmp_path)
    (own / "loop").symlink_to(runs)
    (linked / "loop").symlink_to(linked)
    (runs / "nowhere").symlink_to(tmp_path / "none")
    assert RunLayout.runs_below(runs) == [runs / "a-link", own]
    assert RunLayout.records_below(runs) == [
        runs / "a-link" / "eval" / "quick.json",
        own / "eval" / "quick.json",
    ]
    assert RunLayout.runs_below(runs / "a-link") == [runs / "a-link"]
    assert RunLayout.runs_below(tmp_path / "none") == []
