"""The errors that a person is meant to read."""


class PhotochromError(Exception):
    """Something went wrong that a person can mend: one line that names the value and the mend (exit 1)."""


class UsageError(PhotochromError):
    """The command was used wrongly (exit 2)."""


class Interrupted(PhotochromError):
    """A signal ended the work after what was done had been kept (exit 128 + the signal's number)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
