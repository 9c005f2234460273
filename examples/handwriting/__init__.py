"""Learn to read lines of real handwriting; run `python -m examples.handwriting`."""
