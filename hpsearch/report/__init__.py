"""Output for people: HTML reports, terminal tables and the dashboard. Does not load torch."""
