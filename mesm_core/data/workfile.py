"""OUT.part, the temporary file of a conversion; it remains after a kill, so that the conversion can be resumed."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from mesm_core.data.rawcopy import raw_array
from mesm_core.errors import OutputError
from mesm_core.files import make_folder
from mesm_core.inputs import file_size
from mesm_core.places import (
    could_not_write,
    explained,
    is_stream,
    need_room,
    real_path,
    refuse_existing,
    refuse_inputs,
)
from mesm_core.unfailing import UnfailingFile

SAMPLED_FILES = 8


class WorkFile:
    """``OUT.part``: a new file, the unfinished file of an earlier conversion, or, with ``resume``, the OUT to extend.

    Args:
        out: the final HDF5 file; inputs: files that are read; needs: approximate size in bytes, or None.

    Raises:
        OutputError: ``out`` is an input or a device; ``out`` or ``OUT.part`` exists and neither
            ``overwrite`` nor ``resume`` is on; or the disk is full. Nothing is changed then.
    """

    def __init__(self, out: Path, inputs: Sequence[Path], needs: int | None, *, overwrite: bool, resume: bool) -> None:
        self._out, self._needs, self._resume = out, needs, resume
        if is_stream(out):
            raise OutputError(f"{out} is a device or a pipe, and HDF5 needs a file.", hint="Give the name of a file.")
        with explained(out):
            self._real = real_path(out)
            self._path = self._real.parent / f"{self._real.name}.part"
            refuse_inputs([out, self._path], inputs)
            refuse_existing(out, overwrite=overwrite or resume)
            refuse_existing(self._path, overwrite=True)
            unfinished = self._path.exists()
            if unfinished and not resume and not overwrite:
                raise OutputError(
                    f"{self._path} remains from an earlier conversion.",
                    hint="Use --resume to finish it, or --overwrite to start over.",
                )
            self._adds = resume and not unfinished and self._real.exists()
            if self._adds and not h5py.is_hdf5(self._real):
                raise OutputError(f"{out} is not an HDF5 file, so nothing can be added to it.")
            if needs is not None:
                there = self._real if self._adds else self._path
                need_room(out, needs, freed=there.stat().st_size if there.exists() else 0)
            self._fresh = not unfinished and not self._adds
            self._made = make_folder(self._real.parent)
            if unfinished and not resume:
                self._path.unlink()
                self._fresh = True
            if self._adds:
                self._real.replace(self._path)

    @contextmanager
    def written(self) -> Iterator[UnfailingFile]:
        """Yield the file to write to.

        Raises:
            OutputError: writing failed; a new file is then removed, and an earlier one is restored.
        """
        try:
            with UnfailingFile(self._path, "x+b" if self._fresh else "r+b", undo=not self._fresh) as target:
                self._lock(target)
                try:
                    yield target
                    target.check()
                except Exception:
                    target.restore()
                    raise
        except OSError as error:
            failure = could_not_write(
                self._out, error, needs=self._needs, temporary=self._path if self._fresh else None
            )
            self.undo()
            if self._resume and self._path.exists():
                kept = f"Finished videos are kept in {self._path}; --resume continues from there."
                failure.hint = f"{failure.hint or ''} {kept}".strip()
            raise failure from error
        except Exception:
            self.undo()
            raise

    def take_place(self) -> None:
        """Rename the temporary file to the final one."""
        with explained(self._out):
            self._path.replace(self._real)

    def undo(self) -> None:
        """Remove a new temporary file; rename an extended file back to its final name."""
        with explained(self._out):
            if self._adds:
                self._path.replace(self._real)
            elif self._fresh:
                self._path.unlink(missing_ok=True)
                with suppress(OSError):
                    for folder in self._made:
                        folder.rmdir()

    def _lock(self, target: UnfailingFile) -> None:
        try:
            fcntl.flock(target.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"Another process is writing {self._path}.", hint="Wait for it to end.") from None
        except OSError:
            return  # a file system without locks


def about_size(videos: Iterable[Sequence[Path]], dtype: str | None) -> int | None:
    """Return the approximate size in bytes of the videos' datasets, or None if it cannot be estimated.

    The estimate assumes that all files have the dtype of the first one that can be copied unchanged.

    Args:
        videos: files of each video; dtype: type to convert to, or None to keep the stored type.
    """
    paths = [path for files in videos for path in files]
    like = next((raw for raw in map(raw_array, paths[:SAMPLED_FILES]) if raw is not None), None)
    if like is None:
        return None
    scale = 1.0 if dtype is None else np.dtype(dtype).itemsize / like.dtype.itemsize
    return round(scale * sum(map(file_size, paths)))
