"""`tf.nn.ctc_loss`: with sparse labels a kernel in C++, with dense ones a graph."""

import importlib
import os
import time
from typing import Any

import numpy as np

from benchmarks.contenders.program import Program
from tests.cases import Batch


def tensorflow_loss(is_sparse: bool, batch: Batch, mode: str) -> Program:
    """In a `tf.function`, on all cores, with a `GradientTape` where one is needed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf: Any = importlib.import_module("tensorflow")
    logits = tf.constant(batch.logits)
    frames, counts = (tf.constant(array) for array in batch[2:4])
    labels = tf.constant(batch.labels)
    if is_sparse:
        places = np.arange(batch.labels.shape[1]) < batch.label_lengths[:, None]
        labels = tf.sparse.SparseTensor(
            np.argwhere(places), batch.labels[places], batch.labels.shape
        )

    def mean(logits: Any, labels: Any) -> Any:
        losses = tf.nn.ctc_loss(
            labels,
            logits,
            label_length=None if is_sparse else counts,
            logit_length=frames,
            logits_time_major=False,
            blank_index=batch.blank_id,
        )
        return tf.reduce_mean(losses)

    def value_and_grad(logits: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = mean(logits, labels)
        return loss, tape.gradient(loss, logits)

    function = tf.function(mean if mode == "value" else value_and_grad)
    start = time.perf_counter()
    function.get_concrete_function(logits, labels)
    traced = time.perf_counter() - start

    def run() -> Any:
        result = function(logits, labels)
        if mode == "value":
            return (result.numpy(),)
        return tuple(part.numpy() for part in result)

    return Program(run, traced, None, None)
