"""Ailments of a node: each module finds those of one kind, by reading alone."""
