"""podwired, the node agent: gives this node its subnet and maintains routes to the subnets of all other nodes.

store event -> cluster state -> peers -> forwarding state -> netlink messages

An event of the store (`stores`) changes the cluster state, which the peers follow from (`model`); of these the
forwarding state is made, compared with the kernel's, and the difference sent (`dataplane`). `controllers.overlay` takes
these steps, woken by `runtime.loop`; changes in the kernel that disturb the result (`controllers.drift`) wake it, too.
"""
