"""The exceptions that are for the person at the terminal; the command line prints them as a single line."""


class GanpipeError(Exception):
    """Bad input or a missing resource.

    The message is for the person at the terminal: it names the file, key or value, says what was expected, and
    what to do next where that is known.
    """


class UnavailableError(GanpipeError):
    """Something outside does not answer now and may later: the same command is worth another try."""


EXIT_MENDABLE = 2
EXIT_UNAVAILABLE = 75
"""`EX_TEMPFAIL` of sysexits: what the command line returns for `UnavailableError`. Prefect tries such a stage again."""
