"""A history of runs as one page that needs nothing else.

``series`` works out what is shown, ``charts`` draws, ``rows`` and ``page`` write HTML, ``__main__`` does the rest.
"""
