"""What every other package may use: checks, files, seeds, types and distribution."""
