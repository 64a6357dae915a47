"""Where studies live: the database, what is stored in it, the locks beside it, and the folder of runs."""
