"""The resources of one trial, and how many trials fit into a cluster at a time."""

from __future__ import annotations

import math

import ray

from ...spaces.errors import UserError
from ..config.settings import SearchSettings

ROUNDING_TOLERANCE = 1e-6  # 1 / 0.1 must be 10


def cluster_trial_concurrency(settings: SearchSettings, gpus: float) -> int:
    """Return how many trials run at a time on the present nodes, at most `settings.workers`.

    Raises:
        UserError: this machine is too small for one trial, and there is no cluster.
    """
    nodes = alive_node_resources()
    fitting = trials_fitting_nodes(nodes, settings, gpus)
    if not fitting and settings.address is None:
        gpus_here, cpus_here = max((node.get("GPU", 0), node.get("CPU", 0)) for node in nodes)
        raise UserError(
            f"a trial must fit into this machine's {cpus_here:g} CPUs and {gpus_here:g} GPUs, got "
            f"{settings.cpus_per_trial:g} and {gpus:g}; lower --cpus-per-trial or --gpus-per-trial"
        )
    most = max(1, fitting)
    return min(settings.workers or most, most)


def missing_resources_message(settings: SearchSettings, gpus: float) -> str | None:
    """Return a message if no present node is large enough for a trial; one may still join."""
    if trials_fitting_nodes(alive_node_resources(), settings, gpus):
        return None
    cpus = settings.cpus_per_trial
    return f"no node has {cpus:g} CPUs and {gpus:g} GPUs now; waiting for one"


def alive_node_resources() -> list[dict[str, float]]:
    """Return the total resources of each node, used or free."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def trials_fitting_nodes(
    nodes: list[dict[str, float]], settings: SearchSettings, gpus: float
) -> int:
    """Return how many trials fit into the nodes."""
    return sum(trials_fitting_node(node, settings.cpus_per_trial, gpus) for node in nodes)


def trials_fitting_node(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Return how many trials with these needs fit into a node."""
    needs = {"CPU": cpus, "GPU": gpus}
    return min(int(node.get(name, 0) / n + ROUNDING_TOLERANCE) for name, n in needs.items() if n)


def requested_or_even_gpus(settings: SearchSettings) -> float:
    """Return the GPUs of one trial: as requested, or an even share."""
    if settings.gpus_per_trial is not None:
        return settings.gpus_per_trial
    return even_gpu_share(total_resource("GPU"), cluster_trial_concurrency(settings, 0))


def total_resource(name: str) -> float:
    """Return the total of a resource over all nodes."""
    return float(ray.cluster_resources().get(name, 0))  # type: ignore[no-untyped-call]


def even_gpu_share(gpus: float, workers: int) -> float:
    """Return 1 if every worker can have a GPU, else an even share, rounded down for Ray."""
    if gpus >= workers:
        return 1.0
    return math.floor(1000 * gpus / workers) / 1000
