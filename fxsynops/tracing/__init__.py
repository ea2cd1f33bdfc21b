"""A forward becomes a graph, and the model stays as it was.

inputs.py           the arguments of a forward: names, samples, steps; trees.py, their parts
trace.py            trace(model, inputs) -> Trace
borrowed.py         the model's state, lent and put back: places.py, containers.py, random_states.py
sharded.py          parameters of which each process has a part: FSDP2
interception.py     hearing of what a forward does; hooks.py, what it may do to values
recorder.py         writing it down, node by node: graph_writer.py, tensors.py, stand_ins.py
graph_functions.py  what a graph calls beside torch's own functions
guards.py           what must hold for the graph to be replayed: model_reads.py, surroundings.py
witness.py          what really was multiplied, for an audit
node_meta.py        what stands with each node: shape, the user's line, modes
codegen.py          Python that is written out for one model
torch_versions.py   what other versions of torch lack
"""
