"""`folder:DIR`: image files in train/CLASS/ and val/CLASS/ or test/CLASS/ (ImageNet's layout).

With both val/ and test/ each is what it says. With one of them it is the test split, whatever its
name, and validation is cut from train: what chooses must not be what reports.
"""

from __future__ import annotations

import os
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
from .notes import cut_note, split_notes
from .options import LoadOptions
from .stored import load_cached_source

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
USUAL_GREY, USUAL_COLOUR = "half", "imagenet"  # as published weights for photographs expect
MAX_NATIVE_SIDE = 96  # pixels; images of one size up to this stay as they are
DEFAULT_CROP, DEFAULT_RESIZE = 224, 256
FILES_PROBED = 64
PARTS = ("train", "val", "test")
SHOWN = 3  # folders in a note

FileListing = tuple[list[Path], NDArray[np.int64]]


def read(name: str, where: str, reading: LoadOptions) -> DataSplits:
    """Read by name, from the cache if the folder has not changed."""
    return load_cached_source(name, where, reading, _build_data)


def _build_data(path: Path, reading: LoadOptions) -> DataSplits:
    root = find_dataset_root(path, "train")
    if root is None:
        raise UserError(
            f"folder:DIR needs a train/ directory, got {path} without one; "
            "lay the images out as train/CLASS/ and test/CLASS/"
        )
    names = class_names(root / "train")
    notes = layout_notes(root)
    train = list_images(root / "train", names)
    others = [root / part for part in ("val", "test") if (root / part).is_dir()]
    held = [list_images(folder, names) for folder in others]
    if len(held) == 2:
        validation, test = held[0], held[1]
    else:
        train, validation = _cut_validation(train, reading)
        test = held[0] if held else ([], np.empty(0, np.int64))
        used = f"; {others[0].name}/ is the test split" if held else ""
        notes.append(cut_note(len(validation[0]), len(train[0])) + used)
    sizes, modes = _probe(train[0])
    source = _detect_image_format(sizes, modes, reading)
    notes += image_notes(source, sizes, modes)
    streamed = _decoded_bytes(source, train, validation, test) > reading.memory_limit
    mean, std = PRESETS[USUAL_GREY if source.channels == 1 else USUAL_COLOUR]
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
    """The class directories, sorted; there must be two or more."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(names) < 2:
        raise UserError(
            f"data needs at least two classes, got {len(names)} in {folder}; "
            "make one directory a class"
        )
    return names


def list_images(folder: Path, names: list[str]) -> FileListing:
    """Files and labels by class directory, then file name."""
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


def _cut_validation(whole: FileListing, reading: LoadOptions) -> tuple[FileListing, FileListing]:
    files, labels = whole
    rng = np.random.default_rng(reading.seed)
    stay, away = stratified_split(labels, reading.validation_share, rng=rng)
    kept, held = (([files[i] for i in rows], labels[rows]) for rows in (stay, away))
    return kept, held


def layout_notes(root: Path) -> list[str]:
    """What lies in the folder and is not read as its name may say."""
    notes = []
    aside = sorted(p.name for p in root.iterdir() if p.is_dir() and is_visible(p.name))
    aside = [name for name in aside if name not in PARTS]
    if aside:
        notes.append(
            f"not read: {', '.join(aside[:SHOWN])}/ beside train/; validation images lie in val/, "
            "test images in test/"
        )
    skipped, deeper = [], []
    for part in PARTS:
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
            f"skipped: {len(skipped):,} files that are no images in a class folder, "
            f"{min(skipped)} first; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if deeper:
        first = min(deeper)
        notes.append(
            f"warning: images below a class folder count as that class: {first} is class "
            f"{first.parts[1]!r}; if it is a class of its own, move it to {first.parts[0]}/"
        )
    return notes


def is_visible(name: str) -> bool:
    """Whether a name is no hidden one, nor one that archives from macOS have besides."""
    return not name.startswith((".", "__"))


def image_notes(source: ImageFiles, sizes: set[tuple[int, int]], modes: set[str]) -> list[str]:
    """How images are changed: their size, and their colours."""
    notes = []
    if sizes != {source.size}:
        height, width = source.size
        notes.append(
            f"images are resized: the short side to {source.resize}, then the centre {height}x"
            f"{width} is used"
        )
    kept = {"L", "1"} if source.channels == 1 else {"RGB"}
    if modes - kept:
        notes.append(
            f"images of mode {', '.join(sorted(modes - kept))} are converted to RGB; transparency "
            "is dropped"
        )
    return notes


def _probe(files: list[Path]) -> tuple[set[tuple[int, int]], set[str]]:
    """Sizes (H, W) and modes of some of the files."""
    from PIL import Image

    sizes, modes = set(), set()
    for file in files[:: max(1, len(files) // FILES_PROBED)]:
        open_image(file, 3)  # names the file if it is broken
        with Image.open(file) as image:
            sizes.add((image.height, image.width))
            modes.add(image.mode)
    return sizes, modes


def _detect_image_format(
    sizes: set[tuple[int, int]], modes: set[str], reading: LoadOptions
) -> ImageFiles:
    """How to bring every file to one size: small uniform images stay, others are cropped."""
    channels = 1 if modes <= {"L", "1"} else 3
    first = next(iter(sizes))
    if reading.image_size is None and len(sizes) == 1 and max(first) <= MAX_NATIVE_SIDE:
        return ImageFiles((), first, min(first), channels, reading.workers)
    side = reading.image_size or DEFAULT_CROP
    return ImageFiles(
        (), (side, side), side * DEFAULT_RESIZE // DEFAULT_CROP, channels, reading.workers
    )


def _decoded_bytes(source: ImageFiles, *listings: FileListing) -> int:
    each = source.channels * source.size[0] * source.size[1]
    return each * sum(len(files) for files, _ in listings)


def _build_split(listing: FileListing, source: ImageFiles, streamed: bool) -> Split:
    files, labels = listing
    if not streamed:
        return Split(decode_images(files, source), torch.from_numpy(labels))
    empty = torch.empty((0, source.channels, *source.size), dtype=torch.uint8)
    own = ImageFiles(tuple(files), source.size, source.resize, source.channels, source.workers)
    return Split(empty, torch.from_numpy(labels), own)
