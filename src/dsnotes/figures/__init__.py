"""What the figures of the book share: a style, tables of papers, the drawing of a pipeline.

style     fonts and colours
tables    tables of papers, read as they stand
pipeline  a schedule of a pipeline, a row per rank
"""
