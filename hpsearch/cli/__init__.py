"""The command line: `main` has the table of commands, and each command stands in a module that is loaded when it is called."""
