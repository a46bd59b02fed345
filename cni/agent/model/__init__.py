"""The cluster as values: network, leases, peers, and the events of a store. Pure."""
