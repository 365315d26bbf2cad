"""What is common to all cores of one backend. Importing this package loads nothing heavy; its modules do."""
