"""Needs: which artifacts the sets can't do without, so that tidying up MLflow leaves them alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backup.database import DatabaseError, active_ids
from backup.room import RoomError
from backup.sets import BackupError, opened, read_list

if TYPE_CHECKING:
    from pathlib import Path

    from backup.sets import Manifest, Sets

# What MLflow puts below an experiment, besides runs: folders of models and of traces.
_KINDS = {"models", "traces"}


def note_needs(sets: Sets, to: Path) -> str:
    """Write to a file what each set needs and had, by the ids of runs, models and traces.

    Of its ``sets``, oldest first, ``needed`` is what would come back without its artifacts if those were
    deleted, because the store keeps no versions, and ``had`` what had artifacts when the set was made. A set
    does not change, so what the file says of it already is not asked again. Those that can't be read, and
    why, are its ``unread``.

    Args:
        sets: The sets.
        to: The file.

    Returns:
        What was found, for people.
    """
    known = json.loads(to.read_text()).get("sets", {}) if to.exists() else {}
    found: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    for name in sets.names():
        try:
            manifest = sets.manifest(name)
            before = known.get(name, {})
            found.append(before if before.get("sha256") == _checksums(manifest) else _look(sets, manifest))
        except (BackupError, DatabaseError, RoomError) as error:
            unread[name] = str(error)
    found.sort(key=lambda one: str(one["when"]))
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part")
    part.write_text(json.dumps({"sets": {one["name"]: one for one in found}, "unread": unread}))
    part.replace(to)
    needed = {owner for one in found for owner in one["needed"]}
    told = f" {len(unread)} could not be read: {', '.join(unread)}." if unread else ""
    return f"{len(found)} backups need the artifacts of {len(needed)} runs, models and traces.{told}"


def _look(sets: Sets, manifest: Manifest) -> dict[str, Any]:
    with sets.listed(manifest) as artifacts:
        had = {owner for artifact in read_list(artifacts) if (owner := _owner(artifact.key))}
    needed: set[str] = set()
    if manifest.without_versions:
        with sets.opened(manifest.name) as (_, copy, _), opened(manifest, copy) as url:
            needed = active_ids(url)
    return {
        "name": manifest.name,
        "when": manifest.when,
        "sha256": _checksums(manifest),
        "needed": sorted(needed),
        "had": sorted(had),
    }


def _checksums(manifest: Manifest) -> list[str]:
    """Name what is in a set, as another may have its name once it is deleted."""
    return [manifest.database["sha256"], manifest.artifacts["sha256"]]


def _owner(key: str) -> str:
    """Return the id of the run, model or trace that an artifact belongs to; nothing if it is not MLflow's."""
    parts = [part for part in key.split("/")[1:-1] if part not in _KINDS]
    return parts[0] if parts else ""
