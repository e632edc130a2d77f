"""IDX files: what is read, what is refused, and the download against a local server."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hybrid_sweep.errors import UserError
from trainables import digits, idx


def encoded(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


IMAGES = np.arange(24 * 784).reshape(24, 28, 28) % 251
LABELS = np.arange(24) % 10


def write_set(
    folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, suffix: str = ".gz"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pack: Callable[[bytes], bytes] = partial(gzip.compress, mtime=0) if suffix else bytes
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(encoded(images)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(encoded(labels)))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(idx.DATA_VARIABLE, str(tmp_path))
    return tmp_path


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4)), st.booleans())
def test_what_was_written_is_read(values: np.ndarray, compressed: bool) -> None:
    content = gzip.compress(encoded(values)) if compressed else encoded(values)
    np.testing.assert_array_equal(idx.parse_idx(content, values.ndim, "x"), values)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_the_users_is_read(root: Path, suffix: str) -> None:
    write_set(root / "letters", suffix=suffix)
    images, labels = idx.load("letters", "train")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found nothing"),
        (b"\0\0\x0d\x03" + bytes(20), "found 00000d03"),
        (encoded(LABELS), "starting with 00000803, found 00000801"),
        (encoded(IMAGES)[:-1], "cut off or damaged"),
        (encoded(IMAGES) + b"\0", "cut off or damaged"),
        (encoded(IMAGES)[:10], "cut off or damaged"),
        (encoded(IMAGES[:0]), "cut off or damaged"),
        (gzip.compress(encoded(IMAGES))[:-9], "sound gzip file"),
        (b"\x1f\x8b" + bytes(30), "sound gzip file"),
    ],
)
def test_a_damaged_file_is_refused_by_name(root: Path, content: bytes, said: str) -> None:
    write_set(root / "letters")
    file = root / "letters" / "train-images-idx3-ubyte.gz"
    file.write_bytes(content)
    with pytest.raises(UserError, match=said) as refusal:
        idx.load("letters", "train")
    assert str(file) in str(refusal.value)


def test_a_bit_flip_in_compressed_data_is_refused(root: Path) -> None:
    write_set(root / "letters")
    file = root / "letters" / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match="copy or download it again"):
        idx.load("letters", "train")


def test_images_and_labels_must_belong_together(root: Path) -> None:
    write_set(root / "letters", labels=LABELS[:-1])
    with pytest.raises(UserError, match="24 images but 23 labels"):
        idx.load("letters", "train")


def test_a_missing_file_is_named(root: Path) -> None:
    write_set(root / "letters")
    (root / "letters" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="holds neither t10k-labels-idx1-ubyte nor"):
        idx.load("letters", "t10k")


def test_an_unknown_set_says_where_to_put_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"letters is no folder.*data=bundled"):
        idx.load("letters", "train")
    monkeypatch.delenv(idx.DATA_VARIABLE)
    with pytest.raises(UserError, match=f"{idx.DATA_VARIABLE} is not set"):
        idx.load("letters", "train")


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (IMAGES[:, :14], LABELS, "expected images of 28 x 28, found 14 x 28"),
        (IMAGES, LABELS + 1, "expected labels 0 to 9, found 10"),
    ],
)
def test_a_set_of_another_kind_is_refused(
    root: Path, images: np.ndarray, labels: np.ndarray, said: str
) -> None:
    write_set(root / "letters", images, labels)
    with pytest.raises(UserError, match=said):
        digits.load("letters")


def test_the_last_twelfth_is_for_validation(root: Path) -> None:
    write_set(root / "letters")
    splits = digits.load("letters")
    assert {name: images.shape for name, (images, _) in splits.items()} == {
        "train": (22, 784),
        "val": (2, 784),
        "test": (24, 784),
    }
    np.testing.assert_array_equal(splits["val"][0], IMAGES[22:].reshape(2, 784))


class Mirror:
    """A web server on this machine whose folder and requests a test can see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                mirror.asked.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror of a tiny `MNIST`, an empty cache, and no data of the user's."""
    write_set(tmp_path / "mirror")
    sums = {
        file.stem: hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest()
        for file in (tmp_path / "mirror").iterdir()
    }
    mirror = Mirror(tmp_path / "mirror")
    monkeypatch.setattr(idx, "MNIST_SHA256", sums)
    monkeypatch.setattr(idx.platformdirs, "user_cache_path", lambda *a, **k: tmp_path / "cache")
    monkeypatch.setenv(idx.URL_VARIABLE, mirror.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(idx.DATA_VARIABLE, raising=False)
    thread = threading.Thread(target=mirror.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield mirror
    mirror.server.shutdown()
    thread.join()
    mirror.server.server_close()


def test_mnist_is_downloaded_once(mirror: Mirror) -> None:
    for _ in range(2):
        images, labels = idx.load("mnist", "train")
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(labels, LABELS)
    assert mirror.asked == ["/train-images-idx3-ubyte.gz", "/train-labels-idx1-ubyte.gz"]


def test_a_recompressed_download_is_the_same_file(mirror: Mirror) -> None:
    file = mirror.folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(encoded(IMAGES), compresslevel=1))
    np.testing.assert_array_equal(idx.load("mnist", "train")[0], IMAGES)


@pytest.mark.parametrize(
    "content", [gzip.compress(encoded(IMAGES + 1)), b"\x1f\x8bnot so", b"<html>sign in</html>"]
)
def test_a_wrong_download_is_removed_and_can_be_repeated(
    mirror: Mirror, tmp_path: Path, content: bytes
) -> None:
    file = mirror.folder / "train-images-idx3-ubyte.gz"
    sound = file.read_bytes()
    file.write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        idx.load("mnist", "train")
    assert not (tmp_path / "cache" / "mnist" / file.name).exists()
    file.write_bytes(sound)
    np.testing.assert_array_equal(idx.load("mnist", "train")[0], IMAGES)


def test_an_unreachable_mirror_names_the_ways_out(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(idx.URL_VARIABLE, f"{mirror.url}/nowhere/")
    with pytest.raises(UserError, match="404") as refusal:
        idx.load("mnist", "train")
    for way_out in (idx.DATA_VARIABLE, idx.URL_VARIABLE, "data=bundled"):
        assert way_out in str(refusal.value)


def test_a_folder_of_the_users_comes_before_the_download(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "own" / "mnist", labels=LABELS[::-1])
    monkeypatch.setenv(idx.DATA_VARIABLE, str(tmp_path / "own"))
    np.testing.assert_array_equal(idx.load("mnist", "train")[1], LABELS[::-1])
    assert mirror.asked == []


MNIST = Path(os.environ.get(idx.DATA_VARIABLE, "")) / "mnist"
needs_mnist = pytest.mark.skipif(
    idx.DATA_VARIABLE not in os.environ or not MNIST.is_dir(), reason=f"no mnist in ${idx.DATA_VARIABLE}"
)


@needs_mnist
def test_the_checksums_are_those_of_mnist() -> None:
    for stem, expected in idx.MNIST_SHA256.items():
        packed, plain = MNIST / f"{stem}.gz", MNIST / stem
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected


@needs_mnist
def test_mnist_has_55000_5000_10000() -> None:
    sizes = {name: len(labels) for name, (_, labels) in digits.load("mnist").items()}
    assert sizes == {"train": 55_000, "val": 5_000, "test": 10_000}
