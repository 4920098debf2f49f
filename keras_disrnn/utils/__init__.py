"""What every other package may use: checks, files, distribution."""
