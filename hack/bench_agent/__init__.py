"""hack/bench agent: podwired against flanneld."""
