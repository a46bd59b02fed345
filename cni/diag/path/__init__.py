"""The path of a connection from a container, hop by hop: read from the kernel, and seen with a probe."""
