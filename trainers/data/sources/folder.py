"""`folder:DIR`: image files in train/CLASS/ and val/CLASS/ or test/CLASS/ (ImageNet's layout).

If both val/ and test/ exist, they are the validation and the test split. If only one of them
exists, it is the test split whatever its name, and validation is split off from train: the data
that select a network must not be the data that report its accuracy.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ....spaces.errors import UserError
from ..image_options import PRESETS
from ..splits import DataSplits, ImageFiles, Split
from ..stratified import stratified_split
from ..streaming import decode_images, open_image
from .archive import find_dataset_root
from .notes import split_notes, validation_note
from .options import LoadOptions
from .stored import load_cached_source

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
GREY_PRESET, COLOUR_PRESET = "half", "imagenet"  # what published weights for photographs expect
MAX_NATIVE_SIDE = 96  # pixels; images of one common size up to this are not resized
DEFAULT_CROP, DEFAULT_RESIZE = 224, 256
FILES_PROBED = 64
SPLIT_FOLDERS = ("train", "val", "test")
MAX_SHOWN_FOLDERS = 3  # in a note

FileListing = tuple[list[Path], NDArray[np.int64]]


def read(name: str, where: str, reading: LoadOptions) -> DataSplits:
    """Load a folder of images, from the cache if the folder has not changed."""
    return load_cached_source(name, where, reading, _build_data)


def _build_data(path: Path, reading: LoadOptions) -> DataSplits:
    root = find_dataset_root(path, "train")
    if root is None:
        raise UserError(
            f"folder:DIR needs a train/ directory, got {path} without one; "
            "arrange the images as train/CLASS/ and test/CLASS/"
        )
    names = class_names(root / "train")
    notes = layout_notes(root)
    train = list_images(root / "train", names)
    others = [root / part for part in ("val", "test") if (root / part).is_dir()]
    held_out = [list_images(folder, names) for folder in others]
    if len(held_out) == 2:
        validation, test = held_out[0], held_out[1]
    else:
        train, validation = _split_off_validation(train, reading)
        test = held_out[0] if held_out else ([], np.empty(0, np.int64))
        test_note = f"; {others[0].name}/ is the test split" if held_out else ""
        notes.append(validation_note(len(validation[0]), len(train[0])) + test_note)
    sizes, modes = _probe(train[0])
    source = _detect_image_format(sizes, modes, reading)
    notes += image_notes(source, sizes, modes)
    streamed = _decoded_bytes(source, train, validation, test) > reading.memory_limit
    mean, std = PRESETS[GREY_PRESET if source.channels == 1 else COLOUR_PRESET]
    splits = [_build_split(part, source, streamed) for part in (train, validation)]
    notes += split_notes(splits[0], splits[1], None, len(names))
    return DataSplits(
        name="folder",
        train=splits[0],
        validation=splits[1],
        test=_build_split(test, source, streamed) if test[0] else None,
        classes=len(names),
        mean=mean,
        std=std,
        input_shape=(source.channels, *source.size),
        notes=tuple(notes),
    )


def class_names(folder: Path) -> list[str]:
    """The sorted names of the class directories; UserError if there are fewer than two."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(names) < 2:
        raise UserError(
            f"data needs at least two classes, got {len(names)} in {folder}; "
            "make one directory per class"
        )
    return names


def list_images(folder: Path, names: list[str]) -> FileListing:
    """Image files and their labels, sorted by class, then by file name."""
    unknown = sorted({p.name for p in folder.iterdir() if p.is_dir()} - set(names))
    if unknown:
        raise UserError(
            f"every class must occur in train, got {folder / unknown[0]} which does not; "
            "add training images of it or remove it"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        directory = folder / name
        found = directory.rglob("*") if directory.is_dir() else ()
        images = sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise UserError(
                f"every class needs an image, got {directory} without one; fill or remove it"
            )
        files += images
        labels += [label] * len(images)
    return files, np.asarray(labels, np.int64)


def _split_off_validation(
    listing: FileListing, reading: LoadOptions
) -> tuple[FileListing, FileListing]:
    files, labels = listing
    rng = np.random.default_rng(reading.seed)
    parts = stratified_split(labels, reading.validation_share, rng=rng)
    train, validation = (([files[i] for i in rows], labels[rows]) for rows in parts)
    return train, validation


def layout_notes(root: Path) -> list[str]:
    """Notes about folders and files that are skipped or read as another class than expected."""
    notes = []
    others = sorted(p.name for p in root.iterdir() if p.is_dir() and is_visible(p.name))
    others = [name for name in others if name not in SPLIT_FOLDERS]
    if others:
        notes.append(
            f"not read: {', '.join(others[:MAX_SHOWN_FOLDERS])}/ beside train/; put validation "
            "images in val/ and test images in test/"
        )
    skipped, deeper = [], []
    for part in SPLIT_FOLDERS:
        for folder, _, files in os.walk(root / part):
            depth = len(Path(folder).relative_to(root).parts)
            visible = [name for name in files if is_visible(name)]
            images = [name for name in visible if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            read = set(images) if depth > 1 else set()
            skipped += [f"{folder}/{name}" for name in visible if name not in read]
            if images and depth > 2:
                deeper.append(Path(folder).relative_to(root))
    if skipped:
        notes.append(
            f"skipped: {len(skipped):,} files that are not images in a class folder, "
            f"{min(skipped)} first; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if deeper:
        first = min(deeper)
        notes.append(
            f"warning: images in subfolders of a class folder belong to that class: {first} is "
            f"class {first.parts[1]!r}; if it is a class of its own, move it to {first.parts[0]}/"
        )
    return notes


def is_visible(name: str) -> bool:
    """False for hidden names and for the extra folders of macOS archives."""
    return not name.startswith((".", "__"))


def image_notes(source: ImageFiles, sizes: set[tuple[int, int]], modes: set[str]) -> list[str]:
    """Notes about changes to the images: resizing and colour conversion."""
    notes = []
    if sizes != {source.size}:
        height, width = source.size
        notes.append(
            f"images are resized: the short side to {source.resize}, then cropped to the centre "
            f"{height}x{width}"
        )
    unchanged = {"L", "1"} if source.channels == 1 else {"RGB"}
    if converted := modes - unchanged:
        notes.append(
            f"images of mode {', '.join(sorted(converted))} are converted to RGB; transparency is "
            "dropped"
        )
    return notes


def _probe(files: list[Path]) -> tuple[set[tuple[int, int]], set[str]]:
    """The sizes (H, W) and modes of a sample of the files."""
    from PIL import Image

    sizes, modes = set(), set()
    for file in files[:: max(1, len(files) // FILES_PROBED)]:
        open_image(file, 3)  # raises an error that names the file if it is unreadable
        with Image.open(file) as image:
            sizes.add((image.height, image.width))
            modes.add(image.mode)
    return sizes, modes


def _detect_image_format(
    sizes: set[tuple[int, int]], modes: set[str], reading: LoadOptions
) -> ImageFiles:
    """The common image format: small images of one size are kept, others are resized."""
    channels = 1 if modes <= {"L", "1"} else 3
    first = next(iter(sizes))
    if reading.image_size is None and len(sizes) == 1 and max(first) <= MAX_NATIVE_SIDE:
        return ImageFiles((), first, min(first), channels, reading.workers)
    side = reading.image_size or DEFAULT_CROP
    return ImageFiles(
        (), (side, side), side * DEFAULT_RESIZE // DEFAULT_CROP, channels, reading.workers
    )


def _decoded_bytes(source: ImageFiles, *listings: FileListing) -> int:
    bytes_per_image = source.channels * source.size[0] * source.size[1]
    return bytes_per_image * sum(len(files) for files, _ in listings)


def _build_split(listing: FileListing, source: ImageFiles, streamed: bool) -> Split:
    files, labels = listing
    if not streamed:
        return Split(decode_images(files, source), torch.from_numpy(labels))
    empty = torch.empty((0, source.channels, *source.size), dtype=torch.uint8)
    return Split(empty, torch.from_numpy(labels), replace(source, files=tuple(files)))
