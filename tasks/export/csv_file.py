"""Write a split as a CSV of paths and labels."""

from __future__ import annotations

from labelmill.tasks.export.image_labels import find_classes, join_names
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.export.out_folder import write_whole
from labelmill.tasks.export.place_images import PlaceImages, is_plain_file, locate


def export_csv(run: ExportRun, place: PlaceImages) -> None:
    """Write SPLIT.csv with the columns path and label, a class's wnid or name; several stand with | between them.

    A path is where the image lies, or with images copied, or out of a container, relative to the CSV.
    """
    for split in run.splits:
        with write_whole(run.out / f"{split}.csv") as stream:
            stream.write("path,label\n")
            for batch in run.done_images_of(split):
                paths = {row["image_id"]: _path_of(run, row) for row in batch}
                put = [(row, path) for row in batch if (path := paths[row["image_id"]]) != locate(run, row)]
                lost = {row["image_id"] for (row, _), why in zip(put, place(put), strict=True) if why is not None}
                stream.writelines(
                    f"{_quote(paths[row['image_id']])},{_quote(join_names(run, find_classes(row)))}\n"
                    for row in batch
                    if row["image_id"] not in lost
                )


def _quote(cell: str) -> str:
    # Python's writer leaves a lone carriage return bare, where its own reader then ends the row.
    return '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in ',"\r\n') else cell


def _path_of(run: ExportRun, row: Row) -> str:
    """Return where the CSV says that an image lies: its place, or where it is put below the folder."""
    location = locate(run, row)
    asked = run.parameters.images
    if asked == "none" or (asked == "link" and is_plain_file(location)):
        return location
    return f"images/{row['split']}/{row['image_id']}"
