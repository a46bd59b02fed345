"""The kernel's interfaces: netlink messages and sockets, namespaces, sysctls, state files. No operation is known."""
