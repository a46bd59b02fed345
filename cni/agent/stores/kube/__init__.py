"""The Kubernetes store of leases (pod CIDRs and flannel's annotations of nodes), and the watch of any resource."""
