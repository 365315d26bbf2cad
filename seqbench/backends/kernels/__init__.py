"""CPU kernels in numba: a vector type, matrix products with packed operands, recurrent cells over time.

Nothing here knows torch; ``seqbench.backends.numba_recurrent`` joins both. Importing this package loads nothing heavy.
"""
