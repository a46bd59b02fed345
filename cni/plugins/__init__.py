"""The plugins: the verbs of each program, from the configuration to the result."""
