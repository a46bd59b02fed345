"""podwired, the node agent: gives this node its subnet and maintains routes to the subnets of all other nodes."""
