"""CPU kernels in numba: a vector type, matrix products, recurrent cells and convolutions over time.

Nothing here knows torch; ``seqbench.backends.numba_*`` join both. Importing this package loads nothing heavy.
"""
