"""An agent that learns in imagination: a head predicts rewards and ends from tokens, and the agent never sees the emulator."""
