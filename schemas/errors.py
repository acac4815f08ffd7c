"""Every error that Labelmill raises on purpose; each is also the built-in that fits it."""


class LabelmillError(Exception):
    """Root of all errors of Labelmill; its text is written for the person who reads it."""


class BadInput(ValueError, LabelmillError):
    """A parameter, a file or an argument is not what was asked for."""


class NotInStore(LookupError, LabelmillError):
    """A store, table, version or row that was named does not exist."""


class StoreDamaged(OSError, LabelmillError):
    """A file of the store is missing or its content is not what its version says."""


class UnsupportedTeacher(ValueError, LabelmillError):
    """A model that cannot serve as a teacher of label maps, with the reason."""


class WorkFailed(RuntimeError, LabelmillError):
    """A run could not do its work although its parameters were right."""


class ServerLost(WorkFailed):
    """Prefect's server went away during a run: what Prefect still wants to tell it, it would try for minutes."""
