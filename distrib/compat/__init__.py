"""Private APIs, patches and error texts of other libraries that distrib relies on, one module per library or topic.

Each module lists what it relies on in `SYMBOLS`, and has a fallback for a version in which a symbol is missing.
"""
