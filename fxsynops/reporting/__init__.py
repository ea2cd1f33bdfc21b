"""One report behind every result, and all of its forms.

report.py           the facts, as a table in a terminal and as JSON; formats.py, other forms
*_table.py          the columns, rows and notes of each kind of result
comparison.py       two reports side by side
plot.py, drawing/   pictures; the graph
files.py            reading TOML, writing files as a whole
"""
