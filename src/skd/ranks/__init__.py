"""Several processes that work as one: how they meet, what they tell each other, and how they end together."""
