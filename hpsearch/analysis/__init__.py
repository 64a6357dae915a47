"""Numbers about results: metrics, intervals, rankings. Loads no torch and writes no HTML."""
