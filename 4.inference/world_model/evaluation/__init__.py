"""Every number of a world, measured against the game it was learnt from."""
