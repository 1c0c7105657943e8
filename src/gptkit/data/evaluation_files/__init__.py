"""The files of evaluations as their authors distribute them, read and checked row by row."""
