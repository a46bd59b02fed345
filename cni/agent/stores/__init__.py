"""Stores of leases: a file of all nodes, etcd, Kubernetes."""
