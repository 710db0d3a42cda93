"""Models: `build.build_model` by name, `weights.load_weights`, `export.export_network`."""
