"""Published tokenizers behind the main line's interface, each read as a difference from it."""
