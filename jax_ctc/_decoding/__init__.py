"""What was said, when nobody knows the labels."""
