"""The commands: one small file for each group; heavy imports stand inside the commands."""
