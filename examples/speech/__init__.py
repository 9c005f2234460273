"""From waveform to letters, to words; run `python -m examples.speech`."""
