"""What ends a command before its output is whole: the user's mistakes, a stop that can be resumed, a full disk; and
what says that an output is whole but for some frames.

Every message is one line with the value, the reason and the way out; the command prints it and exits with the
`exit_status` of its kind.
"""


class UserError(Exception):
    """Something only the user can mend: a config, a path, a file that is not what it should be."""

    exit_status = 2


class ConfigError(UserError):
    """A config that cannot be run; the message names every mistake at once."""


class ContractError(UserError):
    """A slices file, bundle or results file that is not what its contract says."""


class FrameError(UserError):
    """A microscope frame that cannot be classified."""


class Quarantined(Exception):
    """The output is whole but for some frames, which could not be classified; it names them and why."""

    exit_status = 3


class Stopped(Exception):
    """The work was stopped in a resumable state; the message says what is kept and how to go on."""

    exit_status = 75


class Failed(Exception):
    """The work could not go on for a reason outside of it (a full disk), which the message names."""

    exit_status = 1
