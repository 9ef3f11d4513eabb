"""How many forecasts a caller may ask for: one count for all workers."""
