"""A detector with fewer operations, without training: prune to a target, save, look at the page."""

import seqprune
from seqprune.demo import weights_path, write_scenes

data = write_scenes("scenes", train=48, val=24, size=128)
result = seqprune.prune(weights_path(), data=data, target="flops=0.9", imgsz=128)

print(result)  # a table: parameters, file, operations, time, accuracy
result.save("pruned.pt")  # plain Ultralytics opens it
result.report("report.html")
