"""Checks of the chapters' exercises. Without --run-exercises they check the solutions, so that the checks can be trusted."""
