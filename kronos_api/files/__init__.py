"""Candles from files: `read_candles` takes bytes and returns `FileCandles`."""

from kronos_api.files.options import ReadOptions
from kronos_api.files.reader import FileCandles, read_candles

__all__ = ["FileCandles", "ReadOptions", "read_candles"]
