"""hack/bench: podwire against the reference plugins."""
