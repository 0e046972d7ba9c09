"""The one exception for what a user can put right, and the exit code of what a user has stopped.

The command line prints it as a sentence and exits with a non-zero code; every other exception is a bug of ours
and keeps its traceback.
"""

INTERRUPTED = 130
"""Exit code of a command that was stopped by Ctrl-C."""


class UserError(Exception):
    """Something the user can mend. The message names the thing, what was found, and what to do."""
