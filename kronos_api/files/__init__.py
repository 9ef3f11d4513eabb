"""Candles from the files that people have: `read_candles` takes bytes, `Candles` come out."""

from kronos_api.files.reader import Candles, Options, read_candles

__all__ = ["Candles", "Options", "read_candles"]
