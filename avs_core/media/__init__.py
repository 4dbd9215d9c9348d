"""Video files to clips: which frames, by which decoder, behind which guard."""
