"""What this project may claim about speed and memory, measured beside its rivals."""
