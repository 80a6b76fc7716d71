"""The layout of a run folder: where each file of a run lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cembench.util.errors import blaming
from cembench.util.files.names import file_name, shown

CHECKPOINT = "model.safetensors"
COLLECTION = "records.parquet"  # records of many runs in one file


def user_cache() -> Path:
    """Return what the user's commands share: below `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "cembench"


def _folders(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all below it, each once, with the names of its files.

    Links to folders come last, so that no folder is known by a link that has a name of its own
    below `path`. A link to a folder that was seen, or to one that `path` lies in, leads nowhere.
    """
    seen = {None, *map(_identity, path.absolute().resolve().parents)}
    links = [path]
    while links:
        for place, folders, files in os.walk(links.pop(0)):
            if (identity := _identity(place)) in seen:
                folders.clear()
                continue
            seen.add(identity)
            yield Path(place), files
            links += sorted(link for name in folders if (link := Path(place, name)).is_symlink())


def _identity(folder: str | Path) -> tuple[int, int] | None:
    """Return what no other folder has; None for one that is gone."""
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class RunLayout:
    """The files of a run. Checkpoints with names of their own may share a folder.

    All files of a checkpoint `net.safetensors` begin with `net.`, so that no two checkpoints mix.
    Methods that take a record take the path of its file.

    Attributes:
        folder: the run folder.
        file: the name of the checkpoint.
    """

    folder: Path
    file: str = CHECKPOINT

    @classmethod
    def at(cls, path: Path) -> RunLayout:
        """Return the layout of a run folder, or of a checkpoint by its file."""
        return RunLayout(path) if path.is_dir() else RunLayout(path.parent, path.name)

    @classmethod
    def of_record(cls, record: Path) -> RunLayout:
        """Return the layout of the run folder that a record lies in."""
        return RunLayout(record.parent.parent)

    @property
    def own_name(self) -> str:
        """The name of a checkpoint of its own; empty for the one of a run folder."""
        return "" if self.file == CHECKPOINT else Path(self.file).stem

    @property
    def name(self) -> str:
        """The name of the run: that of the folder, or of a checkpoint with a name of its own.

        It is for people: characters that cannot be shown are escapes.
        """
        return shown(self.own_name or self.folder.resolve().name)

    @property
    def checkpoint(self) -> Path:
        """Weights and metadata of the kept epoch."""
        return self.folder / self.file

    @property
    def config(self) -> Path:
        """The resolved experiment."""
        return self._own("config.yaml")

    @property
    def history(self) -> Path:
        """The table of training, one row per epoch."""
        return self._own("history.csv")

    @property
    def resume_state(self) -> Path:
        """All that training needs to go on after its last whole epoch."""
        return self._own("last.ckpt")

    @property
    def midway_state(self) -> Path:
        """The same in the middle of an epoch, where training was stopped or saved there."""
        return self._own("midway.ckpt")

    @property
    def buffer(self) -> Path:
        """The replay buffer at the kept epoch, if the method has one."""
        return self._own("buffer.safetensors")

    @property
    def log(self) -> Path:
        """What the process of an experiment in a suite says."""
        return self._own("log.txt")

    @property
    def lock(self) -> Path:
        """The lock of the process that trains."""
        return self.folder / ".lock"

    def record(self, protocol: str) -> Path:
        """Return the record of the checkpoint under a protocol, by its name."""
        return self.folder / "eval" / self._name(f"{file_name(protocol)}.json")

    def records(self, pattern: str = "*") -> list[Path]:
        """Return the records in the folder whose names, without `.json`, fit, sorted."""
        return sorted(self.folder.glob(f"eval/{pattern}.json"))

    @staticmethod
    def runs_below(path: Path) -> list[Path]:
        """Return all run folders in a folder and below it, sorted."""
        return sorted(folder for folder, files in _folders(path) if CHECKPOINT in files)

    @staticmethod
    def records_below(path: Path) -> list[Path]:
        """Return the records of all run folders in a folder and below it, sorted."""
        return [file for file in RunLayout.results_below(path) if file.suffix == ".json"]

    @staticmethod
    def results_below(path: Path) -> list[Path]:
        """Return these records and the collections beside them, sorted; of a file, itself."""
        if path.is_file():
            return [path] if path.suffix in (".json", ".parquet") else []
        return sorted(
            folder / name
            for folder, names in _folders(path)
            for name in names
            if (
                name.endswith(".json")
                if folder.name == "eval" and folder != path
                else name == COLLECTION
            )
        )

    @staticmethod
    def collection(record: Path) -> Path | None:
        """Return the collection that a record lies in, which its path begins with; None if none."""
        above = (one for one in record.parents if one.suffix == ".parquet")
        return next((one for one in above if one.is_file()), None)

    @staticmethod
    def tables_below(path: Path) -> list[Path]:
        """Return the CSV files in a folder and below it that lie in no run folder, sorted."""
        places = (one for one in _folders(path) if CHECKPOINT not in one[1])
        files = (folder / name for folder, names in places for name in names)
        return sorted(file for file in files if file.suffix == ".csv")

    @staticmethod
    def table(record: Path) -> Path:
        """Return the table of verdicts, one row per image."""
        return record.with_suffix(".parquet")

    @staticmethod
    def curve(record: Path) -> Path:
        """Return the picture of robust accuracy at several radii."""
        return record.with_suffix(".curve.png")

    @staticmethod
    def record_lock(record: Path) -> Path:
        """Return the lock of the process that evaluates."""
        return record.with_name(f".{record.name}.lock")

    @staticmethod
    def cache(record: Path, key: str) -> Path:
        """Return the folder of finished chunks of an evaluation, which a key identifies."""
        return record.with_name(f".{record.name}.{key}.parts")

    @staticmethod
    def adversarial(record: Path) -> Path:
        """Return the folder of the adversarial images, one file per attack."""
        return record.with_suffix(".adversarial")

    @staticmethod
    def samples(record: Path) -> Path:
        """Return the folder of the samples, some files per sampler."""
        return record.parent.parent / "samples" / record.stem

    @staticmethod
    def picture(record: Path, sampler: str) -> Path:
        """Return the picture of a sampler's samples."""
        folder = RunLayout.samples(record)
        with blaming(record):
            return folder.with_name(f"{folder.name}-{file_name(sampler)}.png")

    @staticmethod
    def trajectory(record: Path, sampler: str) -> Path:
        """Return the picture of how a sampler's first chains move."""
        return RunLayout.picture(record, sampler).with_suffix(".trajectory.png")

    def _own(self, name: str) -> Path:
        return self.folder / self._name(name)

    def _name(self, name: str) -> str:
        return f"{self.own_name}.{name}" if self.own_name else name
