"""The plugins: each program's verbs, from the configuration to the answer."""
