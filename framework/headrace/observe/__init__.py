"""What shows people how their services are doing."""
