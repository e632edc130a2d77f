"""A results folder as lines of text, for the Jobs server of Ray moves no files but keeps what a job prints.

`python -m hybrid_sweep.cluster.job_archive FOLDER` prints one; `Jobs.fetch` runs that on the head node.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import secrets
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hybrid_sweep.errors import UserError, one_line
from hybrid_sweep.store.folder import JOURNAL, MANIFEST, SweepFolder

LINE_BYTES = 3000
UNPACKED_BYTES = 16 << 30
"""A few kilobytes can hold a compressed file of any length, which would fill the disk."""
READ_BYTES = 16 << 20
"""Of one read of the archive: its headers have a length of their own, which is read into memory at once."""
MOST_FILES = 200_000
_BEGIN = re.compile(r"^parcel begins, sha256 ([0-9a-f]{64})$", re.MULTILINE)
_END = "parcel ends"
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)


class _Unzipped(gzip.GzipFile):
    """Decompressed bytes, `READ_BYTES` at once at most.

    Raises:
        tarfile.ReadError: on a longer read, as a damaged header asks for.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= READ_BYTES:
            raise tarfile.ReadError("a header is too long")
        return super().read(size)


def pack(folder: Path) -> Iterator[str]:
    """Yield the lines of a results folder: its manifest, journal and models, a compressed tar in base64.

    Raises:
        UserError: there is no manifest in it.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST} yet: wait until its trials have started")
    files = [folder / MANIFEST, folder / JOURNAL]
    models = SweepFolder(folder).models_path
    if models.is_dir():
        files += sorted(file for file in models.iterdir() if not file.is_symlink())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file in files:
            with suppress(FileNotFoundError):  # a model that has just left the front
                content = file.read_bytes()  # at once: a journal grows meanwhile
                member = tarfile.TarInfo(file.relative_to(folder).as_posix())
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    packed = buffer.getvalue()
    yield f"parcel begins, sha256 {hashlib.sha256(packed).hexdigest()}"
    for start in range(0, len(packed), LINE_BYTES):
        yield base64.b64encode(packed[start : start + LINE_BYTES]).decode()
    yield _END


def unpack(text: str, to: Path) -> None:
    """Write what `pack` yielded, amid other lines, to the new or empty folder `to`: all of it or nothing.

    Raises:
        UserError: it is damaged, holds a file that a results folder has not, unpacks to more than
            `UNPACKED_BYTES` or `MOST_FILES`, or there is no room for it.
    """
    packed = _content(text)
    to = to.absolute()
    temporary, room = to.with_name(f".{to.name}.{secrets.token_hex(4)}.tmp"), UNPACKED_BYTES
    try:
        temporary.mkdir(parents=True)
        with (
            _Unzipped(fileobj=io.BytesIO(packed)) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r:") as archive,
        ):
            for number, member in enumerate(archive):
                content = archive.extractfile(member) if member.isreg() and _belongs(member.name) else None
                if content is None:
                    raise UserError(f"the results hold {member.name!r}, no file of ours: they are not taken")
                room -= member.size
                if room < 0 or number == MOST_FILES:
                    raise UserError(
                        f"the results unpack to more than {UNPACKED_BYTES >> 30} GiB or "
                        f"{MOST_FILES:,} files: copy the folder itself"
                    )
                file = temporary / member.name
                file.parent.mkdir(exist_ok=True)
                with file.open("xb") as target:
                    shutil.copyfileobj(content, target)
        temporary.rename(to)
    except UserError:
        raise
    except (*_DAMAGE, FileExistsError) as error:
        raise UserError(f"the results arrived damaged ({one_line(error)}): fetch them again") from None
    except OSError as error:
        raise UserError(
            f"cannot write to {to} ({error.strerror}): make room there, or choose another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _content(text: str) -> bytes:
    """Return the bytes between the first and the last line of a parcel, verified."""
    begin, end = _BEGIN.search(text), text.rfind(f"\n{_END}")
    if begin and end >= begin.end():
        with suppress(ValueError):
            packed = base64.b64decode("".join(text[begin.end() : end].split()), validate=True)
            if hashlib.sha256(packed).hexdigest() == begin.group(1):
                return packed
    raise UserError("the results arrived damaged: fetch them again")


def _belongs(name: str) -> bool:
    """Whether a results folder has such a file; no other name is ever written."""
    return name in (MANIFEST, JOURNAL) or re.fullmatch(r"models/[A-Za-z0-9][\w.+=-]*", name) is not None


def main(folder: str) -> int:
    """Print a results folder; return the exit code."""
    try:
        sys.stdout.writelines(f"{line}\n" for line in pack(Path(folder)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
