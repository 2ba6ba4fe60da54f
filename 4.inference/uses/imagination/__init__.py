"""An agent that learns in imagination: a head predicts rewards and ends from tokens, and the agent never trains in the emulator.

In the test there, `BallGame` serves for it: while its detector sees no ball, the FIRE key replaces the agent's choice.
"""
