"""The run folder as a worker anywhere in the cluster reaches it.

Where the folder is on a disk that the worker's node sees too, files are simply there. Where not,
they travel through Ray's object store to a task on the driver's node, which writes or reads them.
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

NONCE_FILE = ".nonce"  # new at every start: another machine's folder of the same name has another

FilesByName = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class RemoteRunFolder:
    """Where the run folder is."""

    root: Path
    node: str  # Ray's name for the driver's node
    nonce: str

    @property
    def logs(self) -> Path:
        """What the workers print."""
        return self.root / "logs"

    def is_visible(self) -> bool:
        """True on a node that sees the very folder."""
        try:
            return (self.root / NONCE_FILE).read_text() == self.nonce
        except (OSError, UnicodeDecodeError):
            return False

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files to a folder of the run; they are on the disk when this returns."""
        if self.is_visible():
            write_files(self.root / folder, files)
        else:
            ray.get(self.on_driver_node(write_files).remote(self.root / folder, files))

    def read(self, folder: str) -> FilesByName:
        """The files in a folder of the run."""
        if self.is_visible():
            return read_files(self.root / folder)
        found: FilesByName = ray.get(self.on_driver_node(read_files).remote(self.root / folder))
        return found

    def append(self, path: Path, content: bytes) -> None:
        """Add to a file of the run."""
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
    """What all workers of a run are given: the same for every trial."""

    context: Any  # Ray's reference to it: wrapped here, it is not fetched again every trial
    run_folder: RemoteRunFolder
    artifacts: str | None


def make_remote_run_folder(root: Path) -> RemoteRunFolder:
    """Called by the driver, on the node that has the folder."""
    nonce = secrets.token_hex(16)
    write_bytes_atomic(root / NONCE_FILE, nonce.encode())
    return RemoteRunFolder(root, ray.get_runtime_context().get_node_id(), nonce)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write each durably, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes_atomic(folder / name, content)


def append_file(path: Path, content: bytes) -> None:
    """Add to a file."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "ab") as file:
        file.write(content)


def read_files(folder: Path) -> FilesByName:
    """What is in a folder by its names."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
