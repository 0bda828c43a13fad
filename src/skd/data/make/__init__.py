"""Real rows for the paper's four tasks, made from sources that need no account: ``python -m skd.data.make``."""
