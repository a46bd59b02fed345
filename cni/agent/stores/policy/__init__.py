"""Stores of what NetworkPolicy is about: policies, namespaces, pods and nodes, of Kubernetes or a folder of files."""
