"""Parameters of the flow that renames files."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from labelmill.schemas.parameters.fields import FlowParameters, LocalPath
from labelmill.schemas.rename_template import RENAME_FIELDS, check_template

Template = Annotated[str, AfterValidator(check_template)]


class RenameParameters(FlowParameters):
    """Rename a folder's files by a template; a journal finishes what was killed, and takes everything back."""

    source: LocalPath | None = Field(None, description="folder of the files; with --undo, where it is now")
    template: Template = Field(
        "{index:05d}{ext}",
        description="the new name, in the file's own folder, or with a slash the path below the source; fields: "
        + ", ".join(RENAME_FIELDS),
    )
    first: int = Field(0, ge=0, description="what index and number begin with")
    dry_run: bool = Field(False, description="only show what would be renamed")
    undo: LocalPath | None = Field(None, description="journal of a rename to take back")
    journal: LocalPath | None = Field(
        None, description="file for the journal; default: FOLDER.rename-001.jsonl beside the folder, and so on"
    )
    workers: int = Field(0, ge=0, le=256, description="threads that read files for {hash} and {bytes}; 0 means eight")
