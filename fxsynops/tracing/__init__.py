"""A forward becomes a graph, and the model stays as it was.

inputs.py           the arguments of a forward: names, samples, time steps
trace.py            trace(model, inputs) -> Trace
borrowed.py         the model's state, lent and put back; places.py, where a value lives
interception.py     hearing of what a forward does
recorder.py         writing it down, node by node
graph_functions.py  what a graph calls beside torch's own functions
guards.py           what must hold for the graph to be replayed
node_meta.py        what stands with each node: shape, the user's line, modes
codegen.py          Python that is written out for one model
"""
