"""Neurons of libraries that are not installed, written out from their equations.

A test imports a file of this folder as a module of the library that it is named after. The files of
``tests/releases`` go against the libraries themselves.
"""
