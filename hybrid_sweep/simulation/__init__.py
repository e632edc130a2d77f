"""A sweep without training, on an injected clock."""
