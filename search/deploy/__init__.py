"""Steps after a search: `finetune_network`, `export_command`, `train_command`."""
