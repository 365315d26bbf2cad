"""CPU kernels in numba: a vector type, matrix products, recurrent cells, convolutions, the sublayers of a Transformer.

Nothing here knows torch; ``numba_recurrent``, ``numba_convolution`` and ``numba_transformer`` beside this package join
both. Importing the package loads nothing heavy.
"""
