"""Tests of jax_ctc."""
