"""The Kubernetes stores: of leases (pod CIDRs and flannel's annotations of nodes), of policies, namespaces and pods."""
