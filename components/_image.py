"""Images of the steps, an image an extra; ``pipelines.cluster`` replaces them by digests.

A name says ``python`` because kfp's local runner warns about any other, though it pulls none.
"""

DATA = "querylift-python-data:local"
TRAIN = "querylift-python-train:local"
