"""Keeps the stock, and reserves all of an order or nothing of it."""
