"""podwired, the node agent: gives this node its subnet and maintains routes to the subnets of all other nodes.

store event -> cluster state -> peers -> forwarding state -> netlink messages

A thread of the store (`stores`) puts an event into the queue of `runtime.loop`, which hands it to the controllers and
has those synchronize that have something to do. In `controllers.reconciler` the event changes the cluster state, from
which the peers follow (`model`). Of a single lease that has changed, the forwarding state before and after are compared
(`Reconciler._sync_changed_peers`); after anything else, the whole desired state and the kernel's (`_reconcile`). The
difference is sent (`dataplane`). A change in the kernel that differs from the desired state leads there as well
(`controllers.drift`).
"""
