"""The node as the commands see it: what runtimes and podwire have kept, and what the kernel has now."""
