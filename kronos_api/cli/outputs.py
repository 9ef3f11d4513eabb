"""Where forecasts are written, and in which format: CSV, JSON or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from kronos_api.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "json", "parquet"]
SUFFIXES: Final[dict[str, Format]] = {".json": "json", ".parquet": "parquet", ".pq": "parquet"}
"""Formats by the suffix of a file; every other is CSV."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file to write, in one format."""

    path: Path
    format: Format

    def write(self, table: pd.DataFrame) -> None:
        """Write `table`, whose index has the timestamps; raises `InvalidInput`."""
        try:
            match self.format:
                case "csv":
                    table.to_csv(self.path)
                case "json":
                    self.path.write_bytes(_json(table))
                case "parquet":
                    table.reset_index().to_parquet(self.path, engine="pyarrow", index=False)
        except OSError as error:
            raise InvalidInput(
                f"{self.path}: cannot be written: {error.strerror or error}"
            ) from None


def plan(
    files: Sequence[Path], output: Path | None, folder: Path | None, format: Format | None
) -> list[Target | None]:
    """The target of each of `files`: `output`, or a file of the same name in `folder`.

    Makes `folder`. Raises `InvalidInput`.
    """
    if output is not None and (folder is not None or len(files) > 1):
        raise InvalidInput("--output is of one forecast: use --output-dir alone for several files")
    if format is not None and output is None and folder is None:
        raise InvalidInput("--output-format needs --output or --output-dir")
    targets: list[Target | None] = [None] * len(files)
    if output is not None:
        targets = [Target(output, format or SUFFIXES.get(output.suffix.lower(), "csv"))]
    if folder is not None:
        targets = list(_in_folder(files, folder, format or "csv"))
    if any(one is not None and one.format == "parquet" for one in targets):
        _need_pyarrow()
    return targets


def _in_folder(files: Sequence[Path], folder: Path, format: Format) -> list[Target]:
    sources: dict[Path, Path] = {}
    for file in files:
        path = folder / f"{file.name.partition('.')[0] or file.name}.{format}"
        if path in sources:
            raise InvalidInput(
                f"{sources[path]} and {file} would both be written to {path}: rename one, or"
                " forecast them in two runs"
            )
        if path.exists() and path.resolve() == file.resolve():
            raise InvalidInput(f"{file} would be overwritten by its forecast: use another folder")
        sources[path] = file
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be made: {error.strerror or error}") from None
    return [Target(path, format) for path in sources]


def _need_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        raise InvalidInput("Parquet needs pyarrow: pip install 'kronos-api[arrow]'")


def _json(table: pd.DataFrame) -> bytes:
    """A list of objects, one a row, with the fewest digits that read back as the same float32."""
    import orjson

    columns = {str(name): table[name].to_numpy() for name in table}
    rows = [
        {"timestamps": stamp} | {name: values[row] for name, values in columns.items()}
        for row, stamp in enumerate(table.index)
    ]
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
