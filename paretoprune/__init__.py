"""ParetoPrune: AutoML that prunes PyTorch networks to a Pareto front of accuracy and size.

    import paretoprune as pp
    result = pp.search(model, data, target_flops=0.4)
    small = result.pick(max_flops=0.4).model

The package imports each public name on its first use, so that importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .spaces.version import VERSION

if TYPE_CHECKING:
    from .analysis.scores.batch_view import Seen
    from .analysis.scores.registry import Network, batch_score, score
    from .search.api import Picked, Result, load, prune, read_run, resume
    from .search.api import search as search
    from .search.deploy.finetune_api import Shipped, finetune
    from .search.optimizer.search_space import policy_space
    from .search.optimizer.suggesters import Asked
    from .spaces.errors import UserError
    from .spaces.policy.policy import Policy

__version__ = VERSION
__all__ = [
    "Asked",
    "Network",
    "Picked",
    "Policy",
    "Result",
    "Seen",
    "Shipped",
    "UserError",
    "batch_score",
    "finetune",
    "load",
    "policy_space",
    "prune",
    "read_run",
    "resume",
    "score",
    "search",
]

_MODULE_OF_NAME = {
    "Network": ".analysis.scores.registry",
    "Seen": ".analysis.scores.batch_view",
    "batch_score": ".analysis.scores.registry",
    "score": ".analysis.scores.registry",
    "Picked": ".search.api",
    "Result": ".search.api",
    "load": ".search.api",
    "prune": ".search.api",
    "read_run": ".search.api",
    "resume": ".search.api",
    "Shipped": ".search.deploy.finetune_api",
    "finetune": ".search.deploy.finetune_api",
    "UserError": ".spaces.errors",
    "Policy": ".spaces.policy.policy",
    "Asked": ".search.optimizer.suggesters",
    "policy_space": ".search.optimizer.search_space",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use. `search` is a package that can be called."""
    if name == "search":
        return import_module(".search", __name__)
    if name in _MODULE_OF_NAME:
        return getattr(import_module(_MODULE_OF_NAME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
