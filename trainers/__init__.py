"""Who runs networks: data, model zoo, loops, masking, surgery, timing."""
