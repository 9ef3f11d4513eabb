"""The Kronos network as plain torch modules: what is trained, saved and compared against.

Parameter and buffer names are those of the published checkpoints, so that a `state_dict` is a
checkpoint. The engine does not run these modules: it packs their weights for fast decoding
(`kronos_api.engine`), and tests compare the two.
"""

from kronos_api.model.config import KronosConfig, TokenizerConfig
from kronos_api.model.kronos import Kronos
from kronos_api.model.tokenizer import KronosTokenizer

__all__ = ["Kronos", "KronosConfig", "KronosTokenizer", "TokenizerConfig"]
