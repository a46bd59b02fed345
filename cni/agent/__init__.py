"""podwired, the node agent: gives this node its subnet and maintains routes to the subnets of all other nodes.

store event -> cluster state -> peers -> forwarding state -> netlink messages

An event of the store (`stores`) changes the cluster state, from which the peers follow (`model`). Their forwarding
state is compared with the kernel's, and the difference is sent (`dataplane`). `controllers.reconciler` takes these
steps when `runtime.loop` wakes it; so does a change in the kernel that differs from the desired state
(`controllers.drift`).
"""
