"""A table as the objective: its rows are searched as if they were trials."""
