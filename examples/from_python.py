"""Forecast examples/candles.csv from Python, without a server.

python examples/from_python.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kronos_api import Forecaster

CANDLES = Path(__file__).resolve().parent / "candles.csv"


def forecast() -> pd.DataFrame:
    """24 candles after the last of the file: the mean, and the quantiles 0.1 and 0.9."""
    candles = pd.read_csv(CANDLES, index_col="timestamps", parse_dates=True)
    forecaster = Forecaster()  # the bundled demonstration; "NeoQuasar/Kronos-small" is a real model
    return forecaster.forecast(candles, horizon=24, quantile_levels=(0.1, 0.9), seed=7)


if __name__ == "__main__":
    table = forecast()
    print(table[["close", "close-q-0.1", "close-q-0.9"]].to_string(float_format="{:.2f}".format))
    print(f"\n{table.attrs['model']}, seed {table.attrs['seed']}")
