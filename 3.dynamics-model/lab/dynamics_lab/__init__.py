import video_tokenizer  # noqa: F401, before matplotlib: it repairs $MPLBACKEND
