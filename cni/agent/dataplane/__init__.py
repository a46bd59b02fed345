"""The data plane: routes, neighbours and FDB entries that the kernel has to hold, and the tunnel's filter."""
