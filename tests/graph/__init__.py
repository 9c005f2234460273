"""What is read from a graph given as data."""
