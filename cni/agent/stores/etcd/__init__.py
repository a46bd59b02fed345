"""The etcd v3 store: flannel's keys and values, by etcd's JSON gateway."""
