"""The data plane: routes, neighbours, FDB entries, the tunnel's filter and the table of policies in the kernel."""
