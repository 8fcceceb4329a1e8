"""`ops pin`: revisions and digests that the catalog does not have yet."""
