"""Who runs when: admission, deadlines and the engine's thread."""
