"""`kecs doctor`: looking over this machine for what keeps KECS from working, and saying what to do about it.

`examination` has the table of checks and runs them; `machine` is all that they ask of the machine, so that a
test brings its own; each other module has a few checks. Nothing in here starts, stops or repairs anything.
"""
