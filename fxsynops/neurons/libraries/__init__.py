"""One file for each library: everything that is known about its neurons."""
