"""The sections of a study's report. Each section is a function that takes the results and yields blocks."""
