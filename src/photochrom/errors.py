"""The errors that a person is meant to read, and the exit codes that they end a command with."""


class PhotochromError(Exception):
    """Something went wrong that a person can mend: one line that names the value and the mend (exit 1)."""

    exit_code = 1


class UsageError(PhotochromError):
    """The command was used wrongly (exit 2)."""

    exit_code = 2


class Interrupted(PhotochromError):
    """A signal ended the work after what was done had been kept (exit 128 + the signal's number)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class FailedElsewhere(PhotochromError):
    """The first of several processes has failed, and has said why; the others end with it, and with its exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the first process has failed")
        self.exit_code = exit_code
