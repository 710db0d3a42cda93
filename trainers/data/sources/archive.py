"""Folders that come as one .tar.gz: hashed, unpacked safely, found again by their content."""

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
    """The directory or archive that the user named."""
    path = Path(where).expanduser()
    if path.is_dir() or (path.is_file() and is_archive(path)):
        return path
    found = "a file" if path.is_file() else "nothing"
    raise UserError(
        f"data must be a directory or a {ARCHIVE_SUFFIXES[0]} file, got {where} where there is {found}; "
        "check the path"
    )


def hash_data_path(path: Path) -> str:
    """A hash of an archive's bytes, or of a directory's names, sizes and times of change."""
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
    """The archive's content in the cache; members that point out of it are refused."""
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
                    f"got {size:,} in {archive}; make room, or name another PARETOPRUNE_CACHE"
                )
            check_archive_end(tar)
            tar.extractall(partial, filter="data")
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except (tarfile.TarError, OSError, EOFError, LZMAError, ZlibError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"an archive must be whole and hold plain files, got {archive} which does not "
            f"unpack ({error}); copy or pack it again"
        ) from None
    partial.rename(target)
    return target


def check_archive_end(tar: tarfile.TarFile) -> None:
    """Raise unless zeros follow the last member: at a damaged header the reader just stops."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("damaged in the middle")


def delete_unpacked(digest: str) -> None:
    """Delete an unpacked archive once its arrays are stored."""
    shutil.rmtree(cache_folder() / "unpacked" / digest, ignore_errors=True)


def find_dataset_root(path: Path, marker: str) -> Path | None:
    """The shallowest directory, at most two below `path`, that holds `marker`."""
    for folder in (path, *sorted(path.glob("*")), *sorted(path.glob("*/*"))):
        if (folder / marker).is_dir():
            return folder
    return None
