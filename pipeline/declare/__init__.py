"""What users write: recipes, targets and data-set cards, each a frozen pydantic model."""
