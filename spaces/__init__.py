"""The search space: what can be removed, what it costs, and which policies choose it.

Folders: `graph` (channel map), `cost` (cost model and targets), `policy` (policies and
measurements), `allocations` (masks from policies), `records` (results) and `io` (files). The
public names are `policy.policy.Policy` and `errors.UserError`.
"""
