"""The version of this package, which every report carries."""

VERSION = "0.1.0"
