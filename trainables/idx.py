"""Data sets of IDX files: found in a folder of the user's, or, for MNIST, downloaded once and verified."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import platformdirs
import pooch

from hybrid_sweep.errors import UserError
from hybrid_sweep.paths import user_path

DATA_VARIABLE: Final = "HYBRID_SWEEP_DATA"
URL_VARIABLE: Final = "HYBRID_SWEEP_MNIST_URL"
MNIST_URL: Final = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256: Final = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

Bytes = npt.NDArray[np.uint8]


def load(name: str, part: str) -> tuple[Bytes, Bytes]:
    """Return the images (n, rows, columns) and labels (n,) of one part of an IDX data set.

    Args:
        name: folder within `$HYBRID_SWEEP_DATA`; `mnist` is downloaded where there is no such folder.
        part: `train` or `t10k`, the two parts that MNIST and its relatives come in.

    Raises:
        UserError: a file that is missing, unreachable, damaged, or does not belong to its companion.
    """
    images = _read(name, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = _read(name, f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"data set {name!r}, part {part!r}: {len(images)} images but {len(labels)} labels; "
            "expected as many of one as of the other: take both files from the same source"
        )
    return images, labels


def parse_idx(content: bytes, dimensions: int, source: str) -> Bytes:
    """Return the array of unsigned bytes in an IDX file's content, plain or compressed with gzip.

    The format: two zero bytes, the type (8 for unsigned bytes), the number of dimensions, each size
    as a big-endian 32-bit integer, then the values with the last dimension varying fastest.

    Raises:
        UserError: content that is not such a file; `source` names it in the message.
    """
    content = _decompressed(content, source)
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise UserError(
            f"{source}: expected an IDX file of {dimensions}-dimensional bytes, starting with {magic.hex()}, "
            f"found {content[:4].hex() or 'nothing'}: replace it with the original file"
        )
    start = 4 + 4 * dimensions
    sizes = tuple(int(size) for size in np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4"))
    expected = start + int(np.prod(sizes, dtype=np.int64))
    if len(content) != expected or 0 in sizes:
        shape = " x ".join(map(str, sizes))
        raise UserError(
            f"{source}: expected {expected} bytes for its header's {shape} values, found {len(content)}: "
            "the file is cut off or damaged, copy or download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _read(name: str, stem: str, dimensions: int) -> Bytes:
    root = os.environ.get(DATA_VARIABLE)
    folder = user_path(root) / name if root else None
    if folder is not None and folder.is_dir():
        path = _existing(folder, stem)
        return parse_idx(path.read_bytes(), dimensions, str(path))
    if name == "mnist":
        path = _download(stem)
        return parse_idx(_verified(path, stem), dimensions, str(path))
    where = f"{folder} is no folder" if folder else f"{DATA_VARIABLE} is not set"
    raise UserError(
        f"data set {name!r} not found, {where}: set {DATA_VARIABLE} to the folder that holds "
        f"{name}/{stem}.gz and its three companions, or use data=bundled or data=mnist"
    )


def _existing(folder: Path, stem: str) -> Path:
    """Return the plain file if it is there, else the compressed one."""
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise UserError(
        f"{folder} holds neither {stem} nor {stem}.gz: put the file there, or unset {DATA_VARIABLE}"
    )


def _download(stem: str) -> Path:
    """Return the compressed file in the user's cache, fetched if it is not there yet."""
    url = os.environ.get(URL_VARIABLE, MNIST_URL).rstrip("/") + "/"
    file = f"{stem}.gz"
    try:
        cache = platformdirs.user_cache_path("hybrid-sweep", appauthor=False) / "mnist"
        return Path(pooch.create(path=cache, base_url=url, registry={file: None}).fetch(file))
    except (OSError, ValueError, RuntimeError) as error:  # the last: there is no home
        raise UserError(
            f"MNIST is not here and {url}{file} could not be downloaded ({error}): "
            f"set {DATA_VARIABLE} to a folder that holds mnist/{file} and its three companions, "
            f"or set {URL_VARIABLE} to a mirror that this machine reaches; data=bundled needs neither"
        ) from None


def _verified(path: Path, stem: str) -> bytes:
    """Return the file's uncompressed content, or remove the file if that is not MNIST's."""
    try:
        content = _decompressed(path.read_bytes(), str(path))
        if hashlib.sha256(content).hexdigest() == MNIST_SHA256[stem]:
            return content
    except UserError:
        pass
    path.unlink(missing_ok=True)
    raise UserError(
        f"{path}: expected MNIST's {stem} with SHA-256 {MNIST_SHA256[stem]}, found something else and "
        f"removed it: run again to download it anew, or set {DATA_VARIABLE} or {URL_VARIABLE} to a sound copy"
    )


def _decompressed(content: bytes, source: str) -> bytes:
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{source}: expected a sound gzip file, found a damaged one ({error}): copy or download it again"
        ) from None
