"""NetworkPolicy as values: objects, selectors, and the evaluator that says who may talk to whom. Pure."""
