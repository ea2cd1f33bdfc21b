"""The replay, and the exact sums beside it.

replay.py             an fx.Interpreter that counts
program.py            … written out as Python
measured_nodes.py     where events are measured, and for which connections
exact_sums.py         Σ |events| in one read, times fan-out
running_totals.py     passes are added up
firing_rates.py       … of each neuron; per_sample.py, of each sample; per_step.py, of each step
samples_apart.py      samples are told apart, and exchanged to make sure
data_sets.py          a loader, from its first batch to its last
counts.py             numbers per connection
"""
