"""Which rank sees which row, when: snapshot, plan, reader, batches. Imports no pyspark."""
