"""The network configuration as records. Parsing collects all errors."""
