"""Access to the run folder from workers on any node of a cluster.

A worker whose node shares the disk reads and writes files directly. Another worker sends them
through Ray's object store to a task on the driver's node, which reads or writes them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...spaces.io.atomic_write import write_bytes_atomic

NONCE_FILE = ".nonce"  # new at every start: tells apart folders of the same name on two disks

FilesByName = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class RemoteRunFolder:
    """The place of the run folder."""

    root: Path
    node: str  # Ray's id of the driver's node
    nonce: str

    @property
    def logs(self) -> Path:
        """Folder for the output of the workers."""
        return self.root / "logs"

    def is_visible(self) -> bool:
        """Return whether this node shares the disk of the run folder."""
        try:
            return (self.root / NONCE_FILE).read_text() == self.nonce
        except (OSError, UnicodeDecodeError):
            return False

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files to a folder of the run; they are on disk when this returns."""
        if self.is_visible():
            write_files(self.root / folder, files)
        else:
            ray.get(self.on_driver_node(write_files).remote(self.root / folder, files))

    def read(self, folder: str) -> FilesByName:
        """Read all files in a folder of the run."""
        if self.is_visible():
            return read_files(self.root / folder)
        found: FilesByName = ray.get(self.on_driver_node(read_files).remote(self.root / folder))
        return found

    def append(self, path: Path, content: bytes) -> None:
        """Append to a file of the run."""
        ray.get(self.on_driver_node(append_file).remote(path, content))

    def on_driver_node(self, function: Callable[..., Any]) -> Any:
        """Make the function a Ray task on the driver's node."""
        return ray.remote(function).options(**self.driver_node_options())

    def driver_node_options(self) -> dict[str, Any]:
        """Options of a Ray task or actor on the driver's node, which outlives other nodes."""
        where = NodeAffinitySchedulingStrategy(self.node, soft=False)
        return {"num_cpus": 0, "scheduling_strategy": where}


@dataclass(frozen=True, slots=True, eq=False)
class WorkerInputs:
    """What every trial of a run gets."""

    context: Any  # a Ray reference; inside a record, Ray does not resolve it for every trial
    run_folder: RemoteRunFolder
    artifacts: str | None  # URL


def make_remote_run_folder(root: Path) -> RemoteRunFolder:
    """Describe the run folder; called by the driver, whose node has the folder."""
    nonce = secrets.token_hex(16)
    write_bytes_atomic(root / NONCE_FILE, nonce.encode())
    return RemoteRunFolder(root, ray.get_runtime_context().get_node_id(), nonce)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write each file durably, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes_atomic(folder / name, content)


def append_file(path: Path, content: bytes) -> None:
    """Append to a file."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "ab") as file:
        file.write(content)


def read_files(folder: Path) -> FilesByName:
    """Return the content of each file in a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
