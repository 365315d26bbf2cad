"""CPU kernels in numba: a vector type, matrix products, recurrent cells over time, the sublayers of a Transformer.

Nothing here knows torch; ``seqbench.backends.numba_recurrent`` and ``numba_transformer`` join both. Importing this
package loads nothing heavy.
"""
