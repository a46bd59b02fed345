"""podwired, the node agent: a subnet for this node, and ways to the subnets of all others."""
