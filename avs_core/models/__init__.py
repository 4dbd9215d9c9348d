"""The networks, one file each, and the bundles that carry their weights."""
