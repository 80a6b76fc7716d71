"""The committed tables follow from the records beside them."""

from pathlib import Path

import pytest

from cembench.reporting.leaderboard import build_boards, find_records, verify_table

COMMITTED = sorted(Path(__file__).parents[2].glob("leaderboards/*/records.parquet"))


@pytest.mark.parametrize("records", COMMITTED, ids=[path.parent.name for path in COMMITTED])
def test_committed_records_give_the_committed_tables(records, monkeypatch):
    boards = build_boards(find_records([records]).values())
    monkeypatch.setattr(verify_table, "build_boards", lambda _: boards)
    tables = sorted(records.parent.glob("*.csv"))
    assert {path.stem for path in tables} == {board.stem for board in boards}
    for path in tables:
        rows = verify_table.compare_table(path, [])
        assert all(row.agrees for row in rows), (path, rows)
