"""The allocator host-local: one address per range set, leased in files that the reference plugin can use too."""
