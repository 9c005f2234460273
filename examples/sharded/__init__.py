"""The handwriting demo on every device of every process; see `train_sharded.py`."""
