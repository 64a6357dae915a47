"""The sections of a study's report: each is a function from results to blocks."""
