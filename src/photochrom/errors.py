"""The errors for users, and their exit codes."""


class PhotochromError(Exception):
    """A problem that the user can solve. Its one line names the value and the remedy (exit 1)."""

    exit_code = 1


class UsageError(PhotochromError):
    """The user gave a wrong command, option or argument (exit 2)."""

    exit_code = 2


class Interrupted(PhotochromError):
    """A signal ended the work, and its results so far are saved (exit 128 + the signal's number)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class FailedElsewhere(PhotochromError):
    """The first of several processes failed and said why. The others end silently with its exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the first process has failed")
        self.exit_code = exit_code
