"""Where the workload file of a sweep is now: projects are moved and copied, results and code together."""

from __future__ import annotations

import os
from pathlib import Path

from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.workload import SEPARATOR, is_known, located, workload_file

WORKLOAD_AT = "workload_at"
"""Key of a manifest: the path of the workload file from the results folder; None for a module."""


def workload_at(spec: SweepSpec, folder: Path) -> dict[str, str | None]:
    """Return what a manifest says of where the workload file is."""
    file = workload_file(spec.workload.name)
    return {WORKLOAD_AT: os.path.relpath(file, folder.resolve()) if file else None}


def with_workload(spec: SweepSpec, folder: SweepFolder, given: str | None = None) -> SweepSpec:
    """Return the sweep of a folder with its workload where it is now.

    That is where `given` says, else where the file lay when seen from the results, if its content is the
    one that the manifest knows, else where the sweep found it.

    Args:
        spec: of the folder.
        folder: with its results.
        given: import string.

    Raises:
        UserError: the file is nowhere, or `given` leads to another one.
    """
    manifest = folder.manifest
    if given is not None:
        name = located(given, Path())
        if (file := workload_file(name)) is None:
            return _at(spec, name)
        if not file.is_file():
            raise UserError(f"there is no workload file {file}: say where it is now")
        if not is_known(manifest.get("code"), file):
            raise UserError(
                f"{file} is not what the sweep in {folder.path} trained, whose references hold for that: "
                "give the file with the content it had, or begin a new sweep"
            )
        return _at(spec, name)
    if (file := workload_file(spec.workload.name)) is None:
        return spec
    beside = (folder.path.resolve() / (manifest.get(WORKLOAD_AT) or "")).resolve()
    if beside.is_file() and is_known(manifest.get("code"), beside):
        return _at(spec, f"{beside}{SEPARATOR}{spec.workload.name.rpartition(SEPARATOR)[2]}")
    if not file.is_file():
        raise UserError(
            f"the workload file of the sweep is not at {file} any more: put it back, "
            "or say where it is now with --workload FILE:Class"
        )
    return spec


def _at(spec: SweepSpec, name: str) -> SweepSpec:
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={"name": name})})
