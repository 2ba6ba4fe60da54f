"""Long contexts: exact attention block by block, in one process or around a ring of them, and what training on them needs."""
