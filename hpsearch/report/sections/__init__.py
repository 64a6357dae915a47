"""The sections of a study's report. Each is a function from results to blocks."""
