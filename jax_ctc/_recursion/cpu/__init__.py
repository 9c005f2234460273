"""CPUs: the recursion as one call into C++, which keeps the loop over frames inside.

`kernel/` has the source, which XLA calls through its foreign function interface, on the
threads of its own pool: one utterance a task. An utterance is walked from both ends to
the middle and back, so that one code serves alpha and beta, and an utterance alone uses
two threads. The results do not depend on the number of threads.

Arithmetic is that of `blocked`: extended range, float32 inside. Beyond scores and
gradient a thread holds one utterance's rows, all of them or about sqrt(T), 2 MB at
most for utterances of usual length.

The kernel checks all that it indexes by: an id, a length or a number of labels outside
its range means an utterance without a path, never memory of somebody else's.
"""
