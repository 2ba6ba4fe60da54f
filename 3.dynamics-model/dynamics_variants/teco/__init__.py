"""TECO (arXiv:2210.02396): a memory as long as the clip, because a frame is remembered as a few tokens."""
