"""Chapter 1: frames to tokens and back."""

from video_tokenizer.loading import load_tokenizer

__all__ = ["load_tokenizer"]
