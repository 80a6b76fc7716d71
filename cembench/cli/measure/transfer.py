"""`cembench transfer`: show the adversarial images of each run to all others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import DATA_ROOT, DEVICE, FILE, PROTOCOL, RUNS, Command, say

if TYPE_CHECKING:
    import pandas as pd


@click.command("transfer", cls=Command, example="runs --out leaderboards/transfer.csv")
@RUNS
@PROTOCOL(help="Name of the records; the newest with images unless given.")
@click.option("--out", type=FILE, help="Write all columns as CSV, and the matrix beside it.")
@DATA_ROOT
@DEVICE
def command(
    runs: tuple[Path, ...], protocol: str | None, out: Path | None, data_root: str, device: str
) -> None:
    """Show the adversarial images of each run to all other RUNS.

    They are those that `cembench eval --save-adversarial` kept. A cell is the share of them that
    fools the network of its row, of the images that it classifies correctly. An image that survives
    a network's own attacks should hardly fall to images made on another: where more than 1 % do,
    beyond chance, `transfer_wins` fails, since gradients hide what is there.
    """
    import torch

    from cembench.evaluation.transfer import kept_of, transfer_table
    from cembench.util.devices import pick_device
    from cembench.util.display.markdown import markdown_table
    from cembench.util.files import write_text

    found = kept_of(runs, protocol or "*", torch.device(pick_device(device)), data_root)
    table = transfer_table(found)
    shown = markdown_table(_matrix(table))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, text in ((out, table.to_csv(index=False)), (out.with_suffix(".md"), shown)):
            write_text(path, text)
            say(f"wrote {path}", err=True)
    say(shown, nl=False)


def _matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per target, with a column per source and what its survivors fall to."""
    import pandas as pd

    from cembench.util.display.format import percent

    rows = []
    for target, own in table.groupby("target", sort=False):
        of = own.set_index("source").to_dict("index")
        row: dict[str, Any] = {"run": target}
        for source, found in of.items():
            row[str(source)] = percent(
                found["fooled"] / found["images"] if found["images"] else None
            )
        left = of["any"]
        row["survivors that fall"] = f"{left['wins']} of {left['survivors']}"
        row["sanity"] = "⚠ transfer_wins" if left["transfer_wins"] == "fail" else ""
        rows.append(row)
    columns = ["run", *table["source"].unique(), "survivors that fall", "sanity"]
    return pd.DataFrame(rows, columns=columns).fillna("–")
