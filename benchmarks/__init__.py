"""How long everything takes, beside the way it was done before and beside the least it could take.

``pytest benchmarks`` runs the small sizes, ``--full`` the large ones too, ``--device cuda`` what runs on a GPU. One
file a subject; every file says at its head what its floors are. On the CPU everything is held to ``--threads``, one
unless told otherwise. A row's ``extra_info`` holds the ratios and the quality:

* ``ratio_to_floor``: our time over that of the least work that could give the answer;
* ``ratio_to_predecessor``, ``ratio_to_unpruned``: likewise; below 1 is faster;
* everything else says what came out: channels kept, differences, objects seen.

Both sides of a ratio are timed in the same run, in turns. Absolute times of shared machines mean nothing.
"""
