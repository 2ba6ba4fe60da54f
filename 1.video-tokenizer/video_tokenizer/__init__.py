"""Chapter 1: frames to tokens and back."""

from video_tokenizer.registry import load_tokenizer

__all__ = ["load_tokenizer"]
