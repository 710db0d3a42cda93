"""One request from settings to results: a search, one policy, a sensitivity analysis.

Public: `new_search`, `resume_search`, `RunInputs` (search), `prune_with_policy` (single_policy),
`sensitivity_command` (sensitivity), `inspect_network` (inspection).
"""
