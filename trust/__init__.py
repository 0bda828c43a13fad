"""Trials by force: runs are killed, checkpoints damaged, disks filled; the end must be as if nothing had happened."""
