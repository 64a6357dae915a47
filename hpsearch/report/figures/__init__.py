"""The figures of the reports, as plotly figures."""
