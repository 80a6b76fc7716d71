"""Check of a pull request to a board: it adds one entry, and nothing else.

Run it in a clean clone of the board, at the base of the pull request, whose commits have been
fetched. Their files are read as data from git's objects, and never checked out:

    python check_pull_request.py main FETCH_HEAD --report report.md
    python check_pull_request.py main FETCH_HEAD --merge      # and commit the inspected copy

Options after `--` go to `cembench accept`. Exit code 0: accepted. 1: refused. 2: not inspected.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

ENTRIES = "entries"
PLAIN = "100644"  # git's mode of a file that is neither a link, nor a program, nor a submodule
MOST_FILES, MOST_BYTES = 10_000, 2 * 2**30
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+ -]*")


class Refused(Exception):
    """The pull request is no new entry; the message says why."""


def git(*arguments: str, given: str = "") -> str:
    """Return what a git command prints; names of files may be any bytes."""
    run = subprocess.run(["git", *arguments], check=True, capture_output=True, input=given.encode())
    return run.stdout.decode(errors="surrogateescape")


def added(base: str, head: str) -> dict[PurePosixPath, str]:
    """Return the object of each file that a pull request adds; refuse any other change."""
    try:
        fork = git("merge-base", base, head).strip()
    except subprocess.CalledProcessError:
        raise Refused("it shares no commit with the board") from None
    size = int(git("rev-list", "--objects", "--disk-usage", f"{fork}..{head}"))
    if size > MOST_BYTES:  # also of files that a later commit removes: all become part of the board
        raise Refused(f"its commits have {size:,} bytes, and {MOST_BYTES:,} is the most")
    fields = git("diff", "--raw", "-z", "--no-renames", "--no-abbrev", fork, head).split("\0")
    found = {}
    for header, place in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, blob, status = header.split()
        path = PurePosixPath(place)
        if status != "A" or path.parts[0] != ENTRIES or len(path.parts) < 3:
            raise Refused(f"it changes {place!a}; a pull request adds one entry, and nothing else")
        if mode != PLAIN or not all(map(NAME.fullmatch, path.parts)):
            raise Refused(f"{place!a} is no plain file, or has a name that no file of an entry has")
        found[path] = blob
    return found


def entry_of(files: dict[PurePosixPath, str], base: str) -> PurePosixPath:
    """Return the folder of the only entry among files, which has to be new."""
    folders = {PurePosixPath(*path.parts[:2]) for path in files}
    if len(folders) != 1:
        raise Refused(f"it adds {len(folders)} entries; a pull request adds one")
    (folder,) = folders
    if git("ls-tree", base, "--", str(folder)):
        raise Refused(f"there is an entry {folder.name} already; choose another name")
    if len({str(path).casefold() for path in files}) < len(files):
        raise Refused("names of its files differ by case alone")
    if len(files) > MOST_FILES:
        raise Refused(f"it has {len(files)} files, and {MOST_FILES} is the most")
    sizes = git("cat-file", "--batch-check=%(objectsize)", given="\n".join(files.values()))
    if (size := sum(map(int, sizes.split()))) > MOST_BYTES:
        raise Refused(f"it has {size:,} bytes, and {MOST_BYTES:,} is the most")
    return folder


def inspect(files: dict[PurePosixPath, str], entry: PurePosixPath, options: list[str]) -> int:
    """Write the files of an entry to a temporary folder, and let cembench inspect them."""
    from cembench.cli import main as cembench

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, entry.name)
        for path, blob in files.items():
            place = folder / path.relative_to(entry)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                subprocess.run(["git", "cat-file", "blob", blob], check=True, stdout=file)
        try:
            cembench(["accept", str(folder), "--board", ENTRIES, *options])
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def merge(base: str, head: str) -> None:
    """Commit the copy that was inspected, not the files of the pull request, as a merge."""
    git("add", "--", ENTRIES)
    tree = git("write-tree").strip()
    message = "An entry, as it was inspected"
    commit = git("commit-tree", tree, "-p", base, "-p", head, "-m", message).strip()
    git("reset", "--soft", commit)


def main(arguments: list[str]) -> int:
    """Check a pull request; return the exit code."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the commit that is checked out")
    parser.add_argument("head", help="the commit of the pull request")
    parser.add_argument("--report", type=Path, help="file for the page")
    parser.add_argument("--merge", action="store_true", help="commit the entry if it is accepted")
    given = parser.parse_args(arguments[:split])
    base, head = (git("rev-parse", f"{one}^{{commit}}").strip() for one in (given.base, given.head))
    if git("rev-parse", "HEAD").strip() != base or git("status", "--porcelain").strip():
        print("check out the base first, without changes", file=sys.stderr)
        return 2
    report = ["--report", str(given.report.absolute())] if given.report else []
    try:
        files = added(base, head)
        entry = entry_of(files, base)
    except Refused as reason:
        page = f"# Pull request: refused\n\n    {reason}.\n"  # indented, so that names stay text
        print(page, end="")
        if given.report:
            given.report.write_text(page)
        return 1
    code = inspect(files, entry, [*report, *arguments[split + 1 :]])
    if code == 0 and given.merge:
        merge(base, head)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
