"""What a program finds on the machine it runs on: cores, memory that processes share, limits."""
