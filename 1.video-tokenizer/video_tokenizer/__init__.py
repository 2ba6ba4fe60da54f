"""Chapter 1: frames to tokens and back."""

import os
import sys

try:
    import matplotlib  # noqa: F401
except ValueError:  # $MPLBACKEND names what is not installed here, such as the backend of the notebook that started this process
    os.environ["MPLBACKEND"] = "agg"
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        del sys.modules[name]  # imported by halves

from video_tokenizer.registry import load_tokenizer

__all__ = ["load_tokenizer"]
