"""Needs: which artifacts the sets can't do without, so that tidying up MLflow leaves them alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from backup.database import active_ids
from backup.sets import opened, read_list

if TYPE_CHECKING:
    from pathlib import Path

    from backup.sets import Sets

# What MLflow puts below an experiment, besides runs: folders of models and of traces.
_KINDS = {"models", "traces"}


def note_needs(sets: Sets, to: Path) -> str:
    """Write to a file what all sets need and had, by the ids of runs, models and traces.

    Its ``needed`` names the newest set that would come back without the artifacts of an id if those were
    deleted, because the store keeps no versions. Its ``had`` lists what had artifacts when a set was made.

    Args:
        sets: The sets.
        to: The file.

    Returns:
        What was found, for people.

    Raises:
        BackupError: A set is damaged.
        DatabaseError: A set's database is damaged.
        RoomError: The disk of the work folder has no room for a set.
    """
    needed: dict[str, str] = {}
    had: set[str] = set()
    known = sets.all()
    for manifest in known:
        with sets.listed(manifest.name) as artifacts:
            had |= {owner for found in read_list(artifacts) if (owner := _owner(found.key))}
        if manifest.without_versions:
            with sets.opened(manifest.name) as (_, copy, _), opened(manifest, copy) as url:
                needed |= dict.fromkeys(active_ids(url), manifest.name)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps({"needed": needed, "had": sorted(had)}))
    return f"{len(known)} backups need the artifacts of {len(needed)} runs, models and traces."


def _owner(key: str) -> str:
    """Return the id of the run, model or trace that an artifact belongs to; nothing if it is not MLflow's."""
    parts = [part for part in key.split("/")[1:-1] if part not in _KINDS]
    return parts[0] if parts else ""
