"""The one exception a user's mistake raises: its message names the argument, what is wrong and the remedy."""


class UsageError(Exception):
    """An argument, a file or a state of the machine that the user can put right. Scripts print it on one line."""
