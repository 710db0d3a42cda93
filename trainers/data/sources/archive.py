"""Data folders packed as a tar archive: hash them and unpack them safely into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from lzma import LZMAError
from pathlib import Path
from zlib import error as ZlibError

from ....spaces.errors import UserError
from ..cache import cache_folder

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar")


def is_archive(path: Path) -> bool:
    """Whether the file's name says that it is a tar archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def resolve_data_path(where: str) -> Path:
    """The path of the data directory or archive; UserError if there is none."""
    path = Path(where).expanduser()
    if path.is_dir() or (path.is_file() and is_archive(path)):
        return path
    found = "a file" if path.is_file() else "nothing"
    raise UserError(
        f"data must be a directory or a {ARCHIVE_SUFFIXES[0]} file, got {where} where there is "
        f"{found}; check the path"
    )


def hash_data_path(path: Path) -> str:
    """The SHA-256 of an archive's bytes, or of a directory's file names, sizes and mtimes."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    for folder, below, files in os.walk(path):
        below.sort()
        for name in sorted(files):
            state = os.stat(os.path.join(folder, name))
            digest.update(f"{folder}/{name}:{state.st_size}:{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def unpack_archive(archive: Path, digest: str) -> Path:
    """Unpack an archive into the cache; members that point outside of it are refused."""
    target = cache_folder() / "unpacked" / digest
    if target.is_dir():
        return target
    partial = target.with_name(f"{digest}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            size, free = sum(member.size for member in tar), shutil.disk_usage(partial).free
            if size > free:
                raise UserError(
                    f"an archive must unpack to less than is free in the cache, {free:,} bytes, "
                    f"got {size:,} in {archive}; free disk space, or set PARETOPRUNE_CACHE to "
                    "another folder"
                )
            check_archive_end(tar)
            tar.extractall(partial, filter="data")
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except (tarfile.TarError, OSError, EOFError, LZMAError, ZlibError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"an archive must be intact and hold plain files, got {archive} which does not "
            f"unpack ({error}); copy or pack it again"
        ) from None
    partial.rename(target)
    return target


def check_archive_end(tar: tarfile.TarFile) -> None:
    """Raise unless zeros follow the last member. tarfile stops silently at a damaged header."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("damaged in the middle")


def delete_unpacked(digest: str) -> None:
    """Delete an unpacked archive whose arrays are stored."""
    shutil.rmtree(cache_folder() / "unpacked" / digest, ignore_errors=True)


def find_dataset_root(path: Path, marker: str) -> Path | None:
    """The shallowest directory, at most two levels below `path`, that contains `marker`."""
    for folder in (path, *sorted(path.glob("*")), *sorted(path.glob("*/*"))):
        if (folder / marker).is_dir():
            return folder
    return None
