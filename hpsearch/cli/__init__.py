"""The command line. `main` has the table of commands. The module of a command is loaded when the command is called."""
