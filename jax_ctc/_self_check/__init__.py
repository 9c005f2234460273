"""Does this machine compute the loss right, and how fast? `python -m jax_ctc check`.

Every implementation that accepts is compared with float64 NumPy on batches of each kind
of trouble, run again for equal bits (a kernel 20 times), and timed beside the others
and beside Optax and PyTorch where these are installed.
"""
