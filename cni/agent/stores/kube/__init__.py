"""The Kubernetes store: pod CIDRs and flannel's annotations of nodes."""
