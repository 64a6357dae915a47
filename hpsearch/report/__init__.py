"""What a person reads: HTML reports, the terminal's tables, the dashboard. Loads no torch."""
