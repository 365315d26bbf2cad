"""The built-in tasks. Importing this module loads cards only, neither numpy nor torch."""
