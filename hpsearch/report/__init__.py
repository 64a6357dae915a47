"""Output for people: HTML reports, terminal tables and the dashboard. This package does not load torch."""
