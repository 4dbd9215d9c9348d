"""Audio-visual segmentation of large video archives on Ray: the nouns."""
