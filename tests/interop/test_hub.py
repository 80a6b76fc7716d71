"""Push and pull: what comes back is what was sent, or nothing; and addresses in place of files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

import cembench as cb
from cembench.evaluation.record.files import load_record, save_record
from cembench.evaluation.verify import verify_record
from cembench.interop.hub.address import address_of, is_address
from cembench.interop.hub.file_store import FileStore
from cembench.interop.hub.manifest import MANIFEST
from cembench.interop.hub.pull import pull
from cembench.interop.hub.push import push
from cembench.util import extras
from cembench.util.errors import CembenchError
from cembench.util.files.fetched import note, told
from cembench.util.files.locks import locked
from tests.conftest import experiment, images, made_once
from tests.support.hub import TOKEN, Hub, Repository, running

ROOT = Path(__file__).parents[2]
PLAN = {"attacks": [{"name": "pgd", "steps": 2}], "limit": 12}
CARD = {"README.md", "config.json", "record.json", MANIFEST}


def evaluated(folder: Path, trained: Path) -> None:
    shutil.copytree(trained, folder)
    (folder / "log.txt").write_text("said by a process")
    cb.evaluate(folder, protocol=PLAN, save_adversarial=True)


@pytest.fixture(scope="session")
def measured(shared: Path, trained: Path) -> Path:
    """A run folder with a record and its adversarial images; do not write to it."""
    return made_once(shared / "pushed" / "mine", lambda place: evaluated(place, trained))


@pytest.fixture
def run(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of its own, in a working folder and with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(measured, tmp_path / "own" / "mine"))


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where nothing is yet: in memory, and in a folder."""
    yield "memory://board/mine" if request.param == "memory" else f"file://{tmp_path}/store/mine"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, which huggingface_hub of this process asks from now on."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with running() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        values = {"ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": template}
        values |= {"HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": True}
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def edited(address: str, change: Callable[[Any], object]) -> None:
    """Change the manifest of a pushed run."""
    with fsspec.open(f"{address}/{MANIFEST}", "rb") as file:
        values = json.loads(file.read())
    change(values)
    with fsspec.open(f"{address}/{MANIFEST}", "wb") as file:
        file.write(json.dumps(values).encode())


def test_a_run_comes_back_whole(run: Path, address: str) -> None:
    assert push(run, address, fields={"licence": "mit"}) == address
    (Path("runs") / ".mine.part" / "half").mkdir(parents=True)  # a killed pull left it
    back = pull(address)
    assert back == Path("runs/mine")
    found, sent = files(back), files(run)
    kept = {name for name in sent if name not in ("last.ckpt", "log.txt")}
    assert {name: found[name] for name in kept} == {name: sent[name] for name in kept}
    assert {*found} - kept == CARD and [path.name for path in back.parent.iterdir()] == ["mine"]
    (record,) = back.glob("eval/*.json")
    assert load_record(record) == load_record(next(run.glob("eval/*.json")))
    assert all(row.agrees for row in verify_record(record, back))
    assert cb.leaderboard([back])[0].table["run"].tolist() == ["mine"]
    again = push(back, f"{address}-2")  # what was pulled can be pushed
    assert {name: content for name, content in files(pull(again)).items() if name != MANIFEST} == {
        name: content for name, content in found.items() if name != MANIFEST
    } | {"README.md": files(Path("runs/mine-2"))["README.md"]}


def test_states_to_resume_from_go_when_asked(run: Path, address: str) -> None:
    push(run, address, resume_state=True)
    assert "last.ckpt" not in files(pull(address))
    assert "last.ckpt" in files(pull(address, "other", resume_state=True))


def test_a_run_is_written_once(run: Path, address: str) -> None:
    push(run, address)
    with pytest.raises(CembenchError, match="a run is here already; --force"):
        push(run, address)
    (gone,) = run.glob("eval/*.parquet")
    shutil.rmtree(run / "eval")
    push(run, address, force=True)  # without a record
    assert {*files(pull(address))} == {"config.yaml", "history.csv", "model.safetensors", MANIFEST}
    store = FileStore(address_of(address))
    assert store.size(f"eval/{gone.name}") is None, "a file of the earlier push was left"


def test_a_push_that_is_killed_is_no_run(
    run: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(store: FileStore, name: str, content: object) -> None:
        if name == "model.safetensors":
            raise KeyboardInterrupt
        put(store, name, content)  # type: ignore[arg-type]

    put = FileStore._put
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FileStore, "_put", killed)
        push(run, address)
    with pytest.raises(CembenchError, match=r"no cembench\.json here"):
        pull(address)
    with pytest.raises(CembenchError, match="or a push that was stopped; --force"):
        push(run, address)
    push(run, address, force=True)
    assert (pull(address) / "model.safetensors").exists()


@pytest.mark.parametrize("damage", ["changed", "longer", "gone", "no manifest", "half a manifest"])
def test_what_was_changed_does_not_come_back(run: Path, address: str, damage: str) -> None:
    push(run, address)
    hurt = f"{address}/{MANIFEST if 'manifest' in damage else 'model.safetensors'}"
    system, path = fsspec.core.url_to_fs(hurt)
    content = system.cat_file(path)
    if damage in ("gone", "no manifest"):
        system.rm_file(path)
    else:
        new = {"changed": content[:-1] + b"!", "longer": content + b"!"}
        system.pipe_file(path, new.get(damage, content[: len(content) // 2]))
    readings = [pull] if damage == "no manifest" else [pull, cb.load]  # a checkpoint alone loads
    for reading in readings:
        with pytest.raises(CembenchError) as told:
            reading(address)
        assert address in str(told.value) and "\n" not in str(told.value)
    left = [
        *Path("runs").glob("*"),
        *Path("runs").glob(".*"),
        *Path("cache").rglob("*.safetensors"),
    ]
    assert not left


HOSTILE = ("../x", "/etc/x", "eval/../../x", "eval//x.json", "..\\x", "C:/x", ".lock")


def test_names_that_lead_elsewhere_are_refused(run: Path, address: str) -> None:
    push(run, address)
    own = "model.safetensors"
    for name in (*HOSTILE, "eval/CON.json", "a\n.json", "eval/" + "x" * 300, "Model.safetensors"):
        edited(address, lambda m, name=name: m["files"].update({name: m["files"][own]}))
        for reading in (pull, cb.load):
            with pytest.raises(CembenchError, match=r"its cembench\.json: files: ") as told:
                reading(address)
            assert "\n" not in str(told.value)
        edited(address, lambda m, name=name: m["files"].pop(name))
    assert not Path("runs").exists() and not Path("cache").exists()


def test_only_files_of_a_run_are_fetched(run: Path, address: str) -> None:
    push(run, address)
    more = ("evil.py", "weights.bin", "eval/x.pt", "samples/deep/er/x.safetensors", "last.ckpt")

    def name_others(manifest: Any) -> None:
        for name in more:  # which are not even there
            manifest["files"][name] = manifest["files"]["model.safetensors"]

    edited(address, name_others)
    assert not {*more} & {*files(pull(address))}


def test_a_store_may_not_send_more_than_it_says(
    run: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, address)
    alone = f"{address}-file/own.safetensors"
    with fsspec.open(alone, "wb", auto_mkdir=True) as file:
        file.write(b"x" * 99)
    size = FileStore.size
    monkeypatch.setattr(FileStore, "size", lambda *args: size(*args) and 9)
    with pytest.raises(CembenchError, match=r"own\.safetensors is longer than it should be"):
        cb.load(alone)
    monkeypatch.setattr("cembench.interop.hub.store.LONGEST", 9)
    with pytest.raises(CembenchError, match=r"cembench\.json is longer than it should be"):
        pull(address)
    assert not Path("runs").exists() and not list(Path("cache").rglob("*.safetensors"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_in_a_store_is_no_file(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(CembenchError, match=r"no cembench\.json here"):
        pull(f"file://{tmp_path}")


def test_a_manifest_may_not_ask_for_more_than_there_is(run: Path, address: str) -> None:
    push(run, address)
    edited(address, lambda m: m["files"]["model.safetensors"].update(bytes=10**15))
    with pytest.raises(CembenchError, match="1,000,000,000,000,000; push it again"):
        pull(address)
    edited(address, lambda m: m.update(format=99))
    with pytest.raises(CembenchError, match="format 99, of a later cembench"):
        pull(address)


def test_a_full_disk_is_told_before(
    run: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, address)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(CembenchError, match=r"has room for 0\.0 MB"):
        pull(address)


def test_what_is_not_finished_stays(run: Path, trained: Path, cembench: Any) -> None:
    from cembench.models.checkpoint import load_checkpoint, save_checkpoint

    place = "memory://board/x"
    with locked(run / ".lock", "run"), pytest.raises(CembenchError, match="another process"):
        push(run, place)
    (record,) = run.glob("eval/*.json")
    with locked(record.with_name(f".{record.name}.lock"), "record"):
        assert "another process" in cembench("push", run, "--to", place).err
    own = run.parent / "net.safetensors"
    own.write_bytes((trained / "model.safetensors").read_bytes())
    assert "one of several checkpoints" in cembench("push", own, "--to", place).err
    (run / "buffer.safetensors").symlink_to(own)
    assert "leads out of the run folder" in cembench("push", run, "--to", place).err
    (run / "buffer.safetensors").unlink()
    (run / "samples").symlink_to(trained, target_is_directory=True)
    assert "samples: leads out of the run folder" in cembench("push", run, "--to", place).err
    (run / "samples").unlink()
    odd = run / "eval" / "a?b.parquet"
    odd.touch()
    assert "a?b.parquet' cannot be the name of a file" in cembench("push", run, "--to", place).err
    odd.unlink()
    damaged = record.read_bytes()
    record.write_bytes(damaged.replace(b"0", b"1", 1))
    assert "changed since it was written" in cembench("push", run, "--to", place).err
    record.write_bytes(damaged)
    model, metadata = load_checkpoint(run)
    metadata = metadata.model_copy(update={"finished": False})
    save_checkpoint(run / "model.safetensors", model.state_dict(), metadata)
    assert "its training is not finished" in cembench("push", run, "--to", place).err
    assert "records of other weights" in cembench("push", run, "--to", place, "--unfinished").err
    shutil.rmtree(run / "eval")
    assert cembench("push", run, "--to", place, "--unfinished").code == 0
    fsspec.filesystem("memory").store.clear()


def test_what_leaves_this_machine_is_said_before(run: Path, cembench: Any) -> None:
    (record,) = run.glob("eval/*.json")
    named = load_record(record).model_copy(update={"origin": ""})
    protocol = {**named.protocol, "description": "/home/me/secret"}
    from cembench.evaluation.record.files import load_table

    save_record(record, named.model_copy(update={"protocol": protocol}), load_table(record))
    code, out, err = cembench("push", run, "--to", "hf://me/mine", "--dry-run")
    assert code == 0 and "model.safetensors" in out and "README.md" in out
    assert "stays here: last.ckpt, log.txt" in err
    assert "names a path of this machine" in err and "/home/me/secret" in err


def test_a_push_to_the_hub_is_one_commit(run: Path, hub: Hub, cembench: Any) -> None:
    code, out, err = cembench("push", run, "--to", "hf://me/mine", "--private")
    assert code == 0, err
    first = out.strip()
    repository = hub.repositories["me/mine"]
    assert repository.private and first == f"hf://me/mine@{repository.branches['main']}"
    assert len(repository.commits) == 2, "the hub's own first one, and ours"
    back = pull("hf://me/mine")
    sent = files(run)
    assert {name for name in sent if files(back).get(name) != sent[name]} == {
        "last.ckpt",
        "log.txt",
    }
    assert 'cb.load("hf://me/mine")' in (back / "README.md").read_text()
    (old,) = run.glob("eval/*.json")
    record, table = load_record(old), old.with_suffix(".parquet")
    shutil.copy(table, run / "eval" / "new.parquet")
    shutil.rmtree(old.with_suffix(".adversarial"))
    second = push(run, "hf://me/mine")
    assert second != first and len(repository.commits) == 3
    assert {*files(pull(second, "new"))} == {*files(back), "eval/new.parquet"} - {
        name for name in files(back) if ".adversarial" in name
    }
    assert files(pull(first, "old")) == files(back)
    third = push(run, "hf://me/mine@trial")
    assert repository.branches["trial"] == third.partition("@")[2] != repository.branches["main"]
    assert load_record(pull("hf://me/mine@trial", "trial") / old.relative_to(run)) == record
    with pytest.raises(CembenchError, match="a commit cannot change"):
        push(run, first)


def test_what_the_hub_refuses_is_one_line(
    run: Path, hub: Hub, cembench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    push(run, "hf://me/mine", private=True)
    theirs = hub.repositories["them/net"] = Repository()
    theirs.commit("main", {"model.safetensors": b"weights", "run.py": b"import os"})
    for words, message in (
        (("pull", "hf://me/none"), "no such repository, or a private one: log in"),
        (("pull", "hf://me/mine@none"), "no revision none"),
        (("pull", "hf://them/net"), "no cembench.json here"),
        (("push", run, "--to", "hf://me/mine/file"), "names a file"),
        (("push", run, "--to", "hf://them/net"), "holds no run, but 2 other files"),
        (("show", "hf://me/mine/eval/none.json"), "the run has no eval/none.json"),
        (("show", "hf://them/net/none.bin"), "no none.bin here"),
        (("show", "hf://them/net/../x"), "is no file of a repository"),
        (("show", "hf://datasets/x"), "of a model repository"),
        (("eval", "hf://me"), "give hf://USER/NAME"),
    ):
        code, out, err = cembench(*words)
        assert (code, out) == (2, "") and message in err, err
        assert err.splitlines()[-1].startswith("cembench: error: hf://") and TOKEN not in err
    for token in (f"{TOKEN}x", ""):
        monkeypatch.setenv("HF_TOKEN", token)
        for words in (("pull", "hf://me/mine"), ("push", run, "--to", "hf://me/mine")):
            code, _, err = cembench(*words)
            assert code == 2 and "log in" in err and TOKEN not in err, err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = cembench("pull", "hf://them/net")
    assert code == 2 and "HF_HUB_OFFLINE is set" in err, err


def test_two_pushes_at_once_do_not_mix(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, "hf://me/mine")
    from huggingface_hub import HfApi

    check = HfApi._validate_yaml

    def meanwhile(api: HfApi, *args: Any, **options: Any) -> None:
        hub.repositories["me/mine"].commit("main", {"other": b"other"})
        check(api, *args, **options)

    monkeypatch.setattr(HfApi, "_validate_yaml", meanwhile)
    (run / "history.csv").write_text("epoch\n")
    with pytest.raises(CembenchError, match="somebody else has just pushed; push again"):
        push(run, "hf://me/mine")


def test_an_address_stands_for_a_checkpoint(run: Path, hub: Hub, cembench: Any) -> None:
    push(run, "hf://me/mine")
    theirs = torch.equal(cb.load("hf://me/mine")(images()), cb.load(run)(images()))
    assert theirs and not list(Path("cache").rglob("*.adversarial"))
    (record,) = (path.relative_to(run).as_posix() for path in run.glob("eval/*.json"))
    address = "hf://me/mine"
    table = cembench("compare", address, run)
    assert table.code == 0 and f"| {address} |" in table.out
    verified = cembench("verify", f"{address}/{record}", address)
    assert verified.code == 0 and "DIFFERS" not in verified.out
    assert f"- {address}/{record}:" in cembench("show", address).out
    assert cembench("leaderboard", address, run, "--out", "boards").code == 0
    assert cembench("sample", address, "-n", "2", "--steps", "1").code == 0
    assert cb.export(address, "huggingface", "exported").is_dir()
    before = files(Path("cache"))
    plan = ["attacks=[{name: pgd, steps: 1}]", "samples=null", "density=null", "curve=null"]
    done = cembench("eval", address, *plan, "sanity=null", "--limit", "4")
    assert done.code == 0 and files(Path("cache")) == before, "an evaluation wrote into the cache"
    assert cb.leaderboard(["runs"])[0].table["run"].tolist() == ["mine"]
    again = cb.evaluate(address, protocol={**PLAN, "limit": 4})
    assert again.run == "mine" and len(list(Path("runs/mine/eval").glob("*.json"))) == 2
    (Path("runs/mine") / "model.safetensors").write_bytes(b"another")
    refused = cembench("eval", address, *plan)
    assert refused.code == 2 and "its record would go to runs/mine" in refused.err


def test_training_starts_from_an_address(run: Path, hub: Hub) -> None:
    push(run, "hf://me/mine")
    start = {"checkpoint": "hf://me/mine", "frozen": True}
    config = experiment(method="standard", epochs=1, pretrained=start)
    tuned = cb.load(cb.train(config, name="tuned"))
    source = cb.load(run)
    theirs, ours = dict(source.named_parameters()), dict(tuned.named_parameters())
    same = [name for name in ours if torch.equal(ours[name], theirs[name])]
    assert same and len(same) < len(ours)
    assert cb.probe("hf://me/mine", "knn", name="near").exists()
    for name in ("tuned", "near"):  # what others can read, too, and no path of this machine
        saved = (Path("runs") / name / "config.yaml").read_text()
        assert "checkpoint: hf://me/mine" in saved and "cache" not in saved


def test_weights_of_others_are_imported_by_address(run: Path, hub: Hub, cembench: Any) -> None:
    from safetensors.torch import save

    weights = dict(cb.load(run).net.state_dict())
    theirs = hub.repositories["them/net"] = Repository()
    theirs.commit("main", {"nets/weights.safetensors": save(weights), "run.py": b"raise"})
    named = "hf://them/net/nets/weights.safetensors"
    model = "{name: small_cnn, width: 8}"
    code, out, err = cembench("import", "--model", model, "--weights", named, "--dataset", "digits")
    assert code == 0, err
    assert out.strip() == "runs/net/model.safetensors" and f"cembench: {named} (SHA-256" in err
    assert not any(path.endswith("run.py") for path in hub.calls)


def test_the_environment_decides_where_the_hub_is(run: Path, hub: Hub, tmp_path: Path) -> None:
    push(run, "hf://me/mine")
    code = "import sys; from cembench import pull; print(pull('hf://me/mine', sys.argv[1]))"
    code += "; sys.exit('torch' in sys.modules)"
    own = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url}
    own |= {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for out, more in (("a", {}), ("b", {"HF_HUB_OFFLINE": "1"})):
        calls = len(hub.calls)
        done = subprocess.run(
            [sys.executable, "-c", code, out], env=own | more, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert (len(hub.calls) > calls) != bool(more)
    assert "HF_HUB_OFFLINE is set; reading its cache" in done.stderr
    assert files(Path("a")) == files(Path("b"))


def test_live_runs_stay_where_locks_are(run: Path, cembench: Any) -> None:
    for words in (
        ("train", "digits-at", "--out", "s3://bucket/runs"),
        ("run", "digits", "--out", "gs://bucket/runs"),
        ("pull", "memory://board/x", "--out", "s3://bucket/x"),
        ("check", run, "--baseline", "b.yaml", "--out", "s3://bucket/x"),
    ):
        code, _, err = cembench(*words)
        assert code == 2 and err.count("\n") == 1 and "`cembench push` takes" in err, err
    with pytest.raises(CembenchError, match="`cembench push` takes"):
        cb.train(experiment(), "s3://bucket/runs")
    with pytest.raises(CembenchError, match="`cembench push` takes"):
        cb.evaluate(run, out="s3://bucket/runs")
    assert not list(Path().glob("s3*"))


def test_missing_packages_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not extras.find_spec("s3fs"):
        with pytest.raises(CembenchError, match="pip install s3fs"):
            pull("s3://bucket/run")
    with pytest.raises(CembenchError, match="fsspec knows no nope://"):
        pull("nope://bucket/run")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(CembenchError, match=r"pip install 'cembench\[hub\]'"):
        pull("hf://me/mine")


def test_what_an_address_is() -> None:
    hub = address_of("hf://me/at.s0@v1%2F2/eval/quick.json")
    assert (hub.place, hub.revision, hub.file) == ("me/at.s0", "v1/2", "eval/quick.json")
    assert is_address("s3://b/x") and is_address(Path("hf://me/at"))
    assert address_of(Path("file:///tmp/x")).url == "file:///tmp/x"
    assert not any(map(is_address, ("runs/at", "C:/runs", "C:\\runs", "at=runs/at", Path("/x"))))
    private = "ftp://me:word@host/run"
    note(private, Path("cache/run"))
    assert "word" not in str(address_of(private)) + told(Path("cache/run/x"))
