"""The cards of the built-in tasks, one file each: data only, so that ``seqbench list`` costs nothing."""
