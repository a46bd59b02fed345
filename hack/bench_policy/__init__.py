"""hack/bench policy: podwired against kube-network-policies."""
