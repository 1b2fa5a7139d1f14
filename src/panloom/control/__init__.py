"""The control node: want and have are compared here, and the difference is applied."""
