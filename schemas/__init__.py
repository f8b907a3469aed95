"""The contracts of the sample shop: what its services say to each other, and nothing else.

One module per producer. The JSON Schemas in `json/` are made from these classes by
`python -m schemas.export`, one file per version, and old versions stay.
"""
