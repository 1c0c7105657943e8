"""One file a command: each composes what the other packages compute, and computes nothing itself."""
