"""The one kind of error that a reader of the command line sees, and what other errors have to say in it."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one sentence: the offending value, and what to do."""


def first_line(error: Exception, most: int, otherwise: str | None = None) -> str:
    """The first line of an error's text, of at most `most` characters: for a sentence about what a library raised.

    An error without text gives `otherwise`, or the name of its type.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else otherwise or type(error).__name__
