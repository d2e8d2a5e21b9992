"""From data that lies in a folder to a recipe that runs: what ``karui init`` looks at and writes."""
