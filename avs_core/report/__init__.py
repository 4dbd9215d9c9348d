"""The HTML page of a run: what was found, to look at.

page       the archive's rows joined with decoded frames, and the page made of them
overlay    pictures, outlines and sound as what a browser draws
page.html  the page itself
"""
