"""Storage of studies: the database, its records, the caches and the locks."""
