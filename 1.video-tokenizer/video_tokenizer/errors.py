"""The one kind of error that a reader of the command line sees."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one sentence: the offending value, and what to do."""
