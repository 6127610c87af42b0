"""The one exception that means "the user can mend this"; the command line prints it as a single line."""


class GanpipeError(Exception):
    """Bad input or a missing resource.

    The message is for the person at the terminal: it names the file, key or value, says what was expected, and
    what to do next where that is known.
    """
