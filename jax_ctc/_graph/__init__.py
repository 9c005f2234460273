"""A lattice that the user writes down: states and arcs, as arrays."""
