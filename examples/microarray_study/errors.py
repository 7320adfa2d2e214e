"""Errors that a user can put right: shown as one line, `error: ...`, without a traceback."""


class InputError(ValueError):
    """A file, a label, a setting or a results file is not what the job needs."""


class RunError(RuntimeError):
    """One training failed: it diverged, ran out of memory, or was killed."""
