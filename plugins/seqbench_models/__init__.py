"""The built-in models. Importing this module loads cards only, no torch."""
