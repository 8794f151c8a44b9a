"""The one error of this package's readers."""


class VideoError(ValueError):
    """A video that cannot be used: `PATH: CAUSE` in one line.

    Attributes:
        path, cause: the two halves; path is empty on the far side of a loader's worker.
    """

    def __init__(self, path: str, cause: object = None):
        if cause is None:   # a loader rebuilds its worker's error from the text of the traceback: keep its last line
            self.path, self.cause = "", str(path).strip().rsplit("\n", 1)[-1].split("VideoError: ", 1)[-1]
        else:
            self.path, self.cause = str(path), " ".join(str(cause).split()) or type(cause).__name__
        super().__init__(f"{self.path}: {self.cause}" if self.path else self.cause)

    def __reduce__(self):
        return type(self), (self.path, self.cause) if self.path else (self.cause,)
