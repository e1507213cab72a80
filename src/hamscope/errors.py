"""The user's mistakes, as one kind of exception.

Every message is one line with the value, the reason and the way out; the command prints it and exits with 2.
"""


class UserError(Exception):
    """Something only the user can mend: a config, a path, a file that is not what it should be."""


class ConfigError(UserError):
    """A config that cannot be run; the message names every mistake at once."""


class ContractError(UserError):
    """A slices file, bundle or results file that is not what its contract says."""


class FrameError(UserError):
    """A microscope frame that cannot be classified."""


class Stopped(Exception):
    """The work was stopped in a resumable state; the message says what is kept and how to go on (exit 75)."""
