"""A share of a run: a stretch of its shards for one machine, while others label the rest."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.schemas.parameters import parse_share
from labelmill.tasks.shards import Shard
from labelmill.tasks.store.receipts import Receipt, Receipts


def take_share(shards: Sequence[Shard], share: str | None) -> tuple[Shard, ...]:
    """Return the shards of a share such as `2/4`: neighbours, as many as in any other share or one more.

    None takes all.
    """
    which, of = parse_share(share) if share else (1, 1)
    return tuple(shards[len(shards) * (which - 1) // of : len(shards) * which // of])


def gather_receipts(
    shards: Sequence[Shard], mine: Sequence[Receipt], kept: Receipts, *, run: str
) -> list[Receipt] | None:
    """Return the receipts of all shards of a run in their order, given those of one share; None when some are missing.

    Whoever asks last finds all, because a share's receipts are written before it asks.
    """
    known = {receipt.key: receipt for receipt in mine}
    receipts = []
    for shard in shards:
        receipt = known.get(shard.key) or kept.find(shard.key, run=run, with_retried=True)
        if receipt is None:
            return None
        receipts.append(receipt)
    return receipts
