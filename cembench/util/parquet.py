"""Reading parquet without pyarrow's threads.

They can outlive the work: with pyarrow 26 about one command in ten that had read a table aborted as
it ended, with its work done and exit code 134.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd


def read_arrow(source: bytes | Path) -> Any:
    """Return the pyarrow table of a parquet file, or of its content.

    Raises:
        pyarrow.ArrowException, OSError: when it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pa.BufferReader(source) if isinstance(source, bytes) else source
    return pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)


def read_frame(source: bytes | Path) -> pd.DataFrame:
    """Return it as a data frame."""
    frame: pd.DataFrame = read_arrow(source).to_pandas(use_threads=False)
    return frame
