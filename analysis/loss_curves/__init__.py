"""Loss curves: how they are probed, kept, corrected for interactions and drawn."""
