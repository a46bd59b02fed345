"""External interface selection: the interface and addresses by which other nodes reach this one."""
