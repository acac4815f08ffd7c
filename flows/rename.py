"""The flow that renames files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labelmill.flows.definition import define_flow
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import RenameParameters
from labelmill.tasks.progress import ProgressMeter

if TYPE_CHECKING:
    from labelmill.tasks.rename.job import Renamed

NAMES_SHOWN = 20


@define_flow("rename", RenameParameters, run_name="rename {source} to {template}")
def rename(parameters: RenameParameters) -> Outcome:
    """Rename a folder's files by a template; a journal finishes what was killed, and takes everything back."""
    from labelmill.tasks.rename.job import rename_files

    started = time.monotonic()
    meter = ProgressMeter("files", 0)
    renamed = rename_files(parameters, on_done=lambda files: meter.add(done=files))
    return _describe(parameters, renamed, time.monotonic() - started)


def _describe(parameters: RenameParameters, renamed: Renamed, seconds: float) -> Outcome:
    report = renamed.report
    rejected = {
        **renamed.skipped,
        "vanished": len(report.vanished),
        "name_taken": len(report.taken),
        "refused": len(report.refused),
    }
    what = "undo the rename of" if parameters.undo else "finish the rename of" if renamed.resumed else "rename"
    facts = _list_moves(renamed) if renamed.planned else {}
    for word, names in (("vanished", report.vanished), ("taken by others", report.taken), ("refused", report.refused)):
        if names:
            facts[word] = _examples(names)
    if renamed.appeared:
        facts["appeared meanwhile"] = _examples(renamed.appeared)
    if report.stranded:
        facts["left under a hidden name"] = _examples(report.stranded)
    if renamed.journal is not None:
        facts["journal"] = str(renamed.journal)
    if renamed.journal is not None and not parameters.undo and not renamed.planned:
        facts["take it back"] = f"labelmill run rename --undo {renamed.journal}"
    done = 0 if renamed.planned else report.moved + report.before
    return Outcome(
        title=f"{'plan: ' if renamed.planned else ''}{what} {renamed.root}",
        table=None,
        counted="files",
        images=renamed.files + sum(renamed.skipped.values()),
        done=done,
        rejected={reason: count for reason, count in rejected.items() if count},
        seconds=seconds,
        worked=report.moved,
        facts=facts,
    )


def _list_moves(renamed: Renamed) -> dict[str, str]:
    shown = {f"  {_show(move.before)}": f"→ {_show(move.after)}" for move in renamed.moves[:NAMES_SHOWN]}
    rest = len(renamed.moves) - len(shown)
    return {
        "would be renamed": f"{len(renamed.moves):,}",
        **shown,
        **({"  …": f"and {rest:,} more"} if rest > 0 else {}),
    }


def _examples(names: list[str]) -> str:
    return f"{len(names):,}, for example {', '.join(_show(name) for name in names[:3])}"


def _show(name: str) -> str:
    return name if name.isprintable() else ascii(name)
