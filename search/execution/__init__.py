"""Ray: its runtime, Tune's runner and searcher, remote calls, resources, files, signals."""
