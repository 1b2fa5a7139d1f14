"""Protocol state machines without input or output: the product's middle layer."""
