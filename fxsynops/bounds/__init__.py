"""The most that an input can cause, before any data.

bound.py              upper_bound(findings, assumptions) -> Bounded
events_per_step.py    structural: the most events per element and step, at every node
charge.py             what charge pays for, over a whole window
ranges.py             what every tensor can be
driven_neurons.py     neurons with all their calls, and how charge becomes events
estimate.py           what is to be expected at given firing rates; no bound
interference.py       whether a forward leaves a neuron alone
"""
