"""headrace beside what would be used instead: the same work, measured in the same way."""
