"""The one exception that stands for bad input."""


class InputError(ValueError):
    """Something a person gave us cannot be used.

    The message is one line: it names the thing (file, key, value) and says what to do. Entry points print it
    and exit with status 2; anything else that escapes is a defect of ours and keeps its traceback.
    """
