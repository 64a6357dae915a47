"""The search: sampler, pruner, budget, claims and workers. Does not load torch."""
