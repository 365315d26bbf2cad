"""Stored records in, tables and one offline HTML file out. Nothing here needs torch."""
