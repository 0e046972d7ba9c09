"""The one exception for what a user can put right.

The command line prints it as a sentence and exits with a non-zero code; every other exception is a bug of ours
and keeps its traceback.
"""


class UserError(Exception):
    """Something the user can mend. The message names the thing, what was found, and what to do."""
