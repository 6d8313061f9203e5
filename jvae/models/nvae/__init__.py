"""What hierarchical VAEs are made of: convolutions, cells, groups, scales."""
