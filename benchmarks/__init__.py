"""Every speed and memory figure in the documents comes from here, as a ratio measured in one run."""
