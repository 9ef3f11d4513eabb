"""Kronos API: forecasts of candlestick series, over HTTP or from Python.

    from kronos_api import Forecaster

    forecast = Forecaster("NeoQuasar/Kronos-small").forecast(candles, horizon=24)

`candles` and `forecast` are pandas data frames.
"""

from typing import TYPE_CHECKING

from kronos_api.cores import bound_spinning
from kronos_api.errors import InvalidInput, StartupError
from kronos_api.memory import bound_primitive_caches
from kronos_api.version import __version__

if TYPE_CHECKING:
    from kronos_api.forecaster import Forecaster

# Here, because torch reads them when it is first imported or used, by any module of the package.
bound_spinning()
bound_primitive_caches()

__all__ = ["Forecaster", "InvalidInput", "StartupError", "__version__"]


def __getattr__(name: str) -> object:
    """Import `Forecaster` at its first use: importing PyTorch takes seconds."""
    if name == "Forecaster":
        from kronos_api.forecaster import Forecaster

        return Forecaster
    raise AttributeError(f"module 'kronos_api' has no attribute {name!r}")
