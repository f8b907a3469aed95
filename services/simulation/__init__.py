"""The sample shop on a simulated AWS where everything goes wrong that can."""
