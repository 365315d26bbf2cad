"""The only clocks and memory gauges of the project."""
