"""The effects: how each operation is applied, released and compared with what the kernel has."""
