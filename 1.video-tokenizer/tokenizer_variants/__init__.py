"""Published tokenizers with the interface of the main line. Each is documented as a difference from it."""
