"""Who drives whom, and how strongly.

find.py             find(model, inputs) -> Findings: all of the below
calls.py            the call behind every node, and its entry
classify.py         what is events, what is analog: every node plays a role
open_ends.py        products with weights that reach no synapse, and are synapses then
known_values.py     constants, and what is known of factors
signals.py          what tensors hold, and the roles
connect.py          fan-out maps, pulled back from synapses to where events come from
names.py            what nodes are called
results.py          connections and the rest, as plain values
sample_axes.py      which axes seem to be samples and steps
moments.py          which surely are
signs.py            what neurons say of steps
layouts.py          which those of the inputs are, and which of these carry events
"""
