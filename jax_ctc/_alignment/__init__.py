"""What else the lattice tells: the best path, posteriors, samples, entropy, spans."""
