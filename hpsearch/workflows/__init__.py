"""What a command does from beginning to end: the one layer where training, search and reports meet."""
