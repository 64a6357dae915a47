"""The work of each command from beginning to end. Training, search and reports meet here."""
