"""The verbs: one module a family, each function takes the context and returns an exit status."""
