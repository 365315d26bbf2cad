"""The speed phase: how long calls last, how much memory they take, how both grow with the length of a sequence."""
