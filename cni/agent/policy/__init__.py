"""NetworkPolicy as values: objects, selectors, index, the evaluator of connections, the compiler to a table. Pure."""
