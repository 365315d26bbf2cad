"""What a speed phase measured: figures of raw samples, tables, a page."""
