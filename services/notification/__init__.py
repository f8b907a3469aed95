"""Tells customers how their order ended, in one mail each."""
