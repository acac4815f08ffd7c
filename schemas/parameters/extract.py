"""Parameters of the extraction of archives."""

from __future__ import annotations

from pydantic import Field

from labelmill.schemas.parameters.fields import FILE_BYTES_MAX, FlowParameters, LocalPath


class ExtractParameters(FlowParameters):
    """Extract a tar, a tar of tars or a zip: nothing outside the folder, no links, no file replaced."""

    source: LocalPath = Field(description="the archive, a tar or a zip")
    out: LocalPath = Field(description="folder for the files; made when it does not exist")
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$", description="what the archive's sha256 must be")
    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$", description="what the archive's MD5 must be")
    max_bytes: int = Field(8 * FILE_BYTES_MAX, ge=1, description="refuse members larger than this, in bytes")
    max_total_bytes: int = Field(
        2**41, ge=1, description="refuse an archive that holds more than this in all, in bytes; it is not begun then"
    )
    workers: int = Field(0, ge=0, le=256, description="threads that write files; 0 means two for each core")
