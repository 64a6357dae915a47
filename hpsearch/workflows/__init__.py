"""The work of each command from beginning to end. Training, search and reports are combined here."""
