"""Settings: the only reader of the environment, and of `.env` in the working directory.

A setting is a variable with the prefix `KRONOS_`, or `GUNICORN_` if Gunicorn has it too. The
environment takes precedence over the file. An empty variable counts as unset. Bad values stop the
start with one line that names them all.
"""

from kronos_api.config.loading import load_settings
from kronos_api.config.names import unknown_variables, variable
from kronos_api.config.settings import Settings

__all__ = ["Settings", "load_settings", "unknown_variables", "variable"]
