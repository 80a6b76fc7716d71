"""Random faults over all commands, compared with an undisturbed run: `pytest -m chaos`.

`CHAOS_SEED` and `CHAOS_MINUTES` change what is drawn and for how long; `CHAOS_ROUND` repeats one
round of a failure's message. `-rP` prints the counts.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.scene import BEGIN, COMMANDS, remove, snapshot, write_settings
from tests.chaos.strikes import DAMAGE, Ended, Running, after_seconds, at_touch
from tests.conftest import made_once
from tests.support.disk import Disk

SEED = os.environ.get("CHAOS_SEED", "0")
MINUTES = float(os.environ.get("CHAOS_MINUTES", "10"))
ONLY = os.environ.get("CHAOS_ROUND", "")

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STOPPED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
WRITERS = [name for name, command in COMMANDS.items() if command.writes]
MOST_KILLS = 5
TOUCHES = 80  # of files, among which a strike comes
# Text that a user may edit, and pictures and pages, carry no seal: a changed one is another one.
UNSEALED = {".yaml", ".csv", ".md", ".png", ".html", ".txt"}


@pytest.fixture(scope="session")
def straight(shared: Path) -> Path:
    """The scene as undisturbed commands leave it."""
    return made_once(shared / "chaos" / "scene", _make)


def _make(folder: Path) -> None:
    write_settings(folder)
    for command in BEGIN:
        ended = Running(folder.parent, folder, command).end()
        assert ended.code == 0, (command, ended.err)
        if "--protocol gate" in command:  # so few images tell only large differences
            path = folder / "baseline.yaml"
            path.write_text(path.read_text().replace("margin: 0.02", "margin: 0.5"))


@pytest.mark.chaos
@pytest.mark.parametrize("half", [0, 1])
def test_chaos(half: int, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chaos = Chaos(straight, tmp_path, monkeypatch)
    end = time.monotonic() + 60 * MINUTES
    rounds = [ONLY] if ONLY else (f"{SEED}-{half}-{number}" for number in itertools.count())
    for name in itertools.takewhile(lambda _: time.monotonic() < end, rounds):
        chaos.round(name)
    for (fault, command), count in sorted(chaos.counts.items()):
        print(f"{fault:12} {command:12} {count}")
    print(f"{sum(chaos.counts.values())} faults, seed {SEED}, half {half}")
    assert not chaos.failures, "\n\n".join(chaos.failures)


class Chaos:
    """Rounds of faults, each in a copy of the scene."""

    def __init__(self, straight: Path, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.straight, self.place, self.patch = straight, place, patch
        self.expected = snapshot(straight)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []

    def round(self, name: str) -> None:
        """Play one round; what was drawn in it follows from its name alone."""
        self.draw = random.Random(name)
        self.log = [f"round {name}"]
        others = {"kill": self.kill, "disk": self.fill, "rival": self.meet}
        kind = self.draw.choice([*others, *DAMAGE])
        try:
            others.get(kind, lambda: self.damage(kind))()
        except Exception as error:
            self.failures.append("\n".join([*self.log, str(error)]))

    def kill(self) -> None:
        """Kill a command again and again, then let it finish: as if nothing had been."""
        command, folder = self.draw.choice(WRITERS), self.fresh(self.place / "scene")
        remove(folder, COMMANDS[command].writes)
        for _ in range(self.draw.randint(1, MOST_KILLS)):
            number = self.draw.choice(SIGNALS)
            strike = self.moment(number)
            ended = self.call(folder, command, strike)
            self.counts[number.name, command] += 1
            if ended.code == 0:
                break
            worker_died = ended.code == 2 and "process was killed by" in ended.err
            assert ended.code in (STOPPED[number], -number) or worker_died, ended
        self.finish(folder, command)

    def moment(self, number: signal.Signals):
        """Return a strike at a drawn touch of a file, or after a drawn time."""
        if self.draw.random() < 0.7:
            touch = self.draw.randint(1, TOUCHES)
            self.log.append(f"{number.name} at touch {touch}")
            return at_touch(touch, lambda: os.kill(os.getpid(), number))
        seconds = self.draw.uniform(0, 1.5)
        self.log.append(f"{number.name} after {seconds:.3f} s")
        return after_seconds(seconds, number)

    def fill(self) -> None:
        """Fill the disk while a command runs, then free it: nothing that was there is lost."""
        command = self.draw.choice(WRITERS)
        disk = Disk(self.place / "disk", self.patch, "32m")
        try:
            folder = self.fresh(disk.folder / "scene")
            remove(folder, COMMANDS[command].writes)
            before, touch = snapshot(folder), self.draw.randint(1, TOUCHES)
            self.log.append(f"disk full at touch {touch}")
            ended = self.call(folder, command, at_touch(touch, disk.fill))
            self.counts["full disk", command] += 1
            if ended.code != 0:
                assert ended.code == 2 and "No space left on device" in ended.err, ended
            kept = snapshot(folder)
            lost = [path for path, content in before.items() if kept.get(path) != content]
            assert command == "update" or not lost, lost
            disk.free()
            self.finish(folder, command)
        finally:
            disk.close()
            shutil.rmtree(disk.folder)

    def meet(self) -> None:
        """Run a command from beginning to end while another run of it stands still."""
        command, folder = self.draw.choice(WRITERS), self.fresh(self.place / "scene")
        remove(folder, COMMANDS[command].writes)
        touch, place = self.draw.randint(1, TOUCHES), self.place / "rival"
        place.mkdir(exist_ok=True)
        self.log.append(f"another one at touch {touch}")
        stop = at_touch(touch, lambda: os.kill(os.getpid(), signal.SIGSTOP), workers=False)
        first = Running(place, folder, COMMANDS[command].args, stop)
        if first.stopped():
            self.counts["rival", command] += 1
            self.require_one_at_it(self.call(folder, command))
        self.require_one_at_it(first.end())
        self.finish(folder, command)

    def require_one_at_it(self, ended: Ended) -> None:
        """Refuse an end other than success, or a line about the other process."""
        assert ended.code == 0 or (ended.code == 2 and "another process is at it" in ended.err), (
            ended
        )

    def damage(self, kind: str) -> None:
        """Damage a file and run any command; put the file back and run it again."""
        command, folder = self.draw.choice(list(COMMANDS)), self.fresh(self.place / "scene")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        path = self.draw.choice(files)
        content, name = path.read_bytes(), path.relative_to(folder).as_posix()
        self.log.append(f"{kind} {name}{DAMAGE[kind](path, self.draw, files)}")
        ended = self.call(folder, command)
        self.counts[kind, command] += 1
        self.require_told(ended, folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.finish(folder, command)

    def require_told(self, ended: Ended, folder: Path, name: str) -> None:
        """Refuse a traceback, more than one line, and figures that damage changed unseen."""
        assert ended.code in (0, 1, 2), ended
        if ended.code == 2:
            assert "cembench: error: " in ended.err or "check" in self.log[-1], ended
            return
        if Path(name).suffix in UNSEALED:
            return
        for path, content in snapshot(folder).items():
            if path != name and Path(path).suffix not in UNSEALED:
                assert content == self.expected.get(path), f"{path} differs"

    def finish(self, folder: Path, command: str) -> None:
        """Run a command undisturbed: the scene is that of the straight run, without leftovers."""
        ended = self.call(folder, command)
        assert ended.code == 0, ended
        found = snapshot(folder)
        different = [p for p in {**found, **self.expected} if found.get(p) != self.expected.get(p)]
        assert not different, different

    def fresh(self, folder: Path) -> Path:
        """Return a new copy of the scene."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.straight, folder)
        return folder

    def call(self, folder: Path, command: str, *prepare) -> Ended:
        """Run a command; it never shows a traceback."""
        self.log.append(f"cembench {COMMANDS[command].args}")
        ended = Running(self.place, folder, COMMANDS[command].args, *prepare).end()
        assert "Traceback" not in ended.err and "unexpected" not in ended.err, ended
        return ended
