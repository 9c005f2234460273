"""From labels and class scores to a lattice with emissions, and back."""
