"""Our training steps against their rivals on the same work; ``python -m benchmarks.speed --help``."""
