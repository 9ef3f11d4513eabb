"""The rate limit of callers: one count of forecasts for all workers."""
