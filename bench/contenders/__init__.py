"""What is measured: how each contender is started and filled, and how it is asked.

`base` has what they share; one module has one contender, but `limits` has all limits.
"""
