"""Stores of leases (a file of all nodes, etcd, Kubernetes), and of policies and pods (`policy`)."""
