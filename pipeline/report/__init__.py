"""What people see of a run: the table in the terminal, the JSON documents, the page."""
