"""Execution: Ray's runtime, executors of calls, Ray Tune's runner and searcher, signals.

Public: `RayRuntime` (ray_runtime), `LocalExecutor`, `Executors` (executor), `RayExecutor`
(ray_executor), `run_trials_with_tune` (tune_runner), `SignalHandler` (signals).
"""
