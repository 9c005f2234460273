"""Small programs that use `jax_ctc`; each one answers one question."""
