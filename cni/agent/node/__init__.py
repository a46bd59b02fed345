"""The node's own part: subnet.env, the runtime's conflist, masquerade and forward rules."""
