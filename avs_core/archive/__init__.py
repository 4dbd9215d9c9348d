"""The mask archive: Parquet files that commits list, readable by any tool and safe to write from many workers.

schema   what a row is, and what a run is named after
commit   writing: data first, then one conditional commit; dead letters
staging  the units of a cut video wait for each other, then get the numbers of their objects (numbering, association)
ledger   what is done, from a listing
state    what a run holds: the newest snapshot, and the commits after it
read     that, as pyarrow data sets
tracks   each object of a video in one row
compact  small files into few (merge), and a numbered snapshot that lists them (snapshots)
gc       removes what no snapshot and no commit needs
verify   every commit and snapshot against its files

<archive>/data/run=<run_key>/shard=<2 hex>/<unit_id>.parquet      rows: one instance in one frame
          frames/run=<run_key>/shard=<2 hex>/<unit_id>.parquet    what was looked at
          tracks/run=<run_key>/shard=merged/<hash>.parquet        one object of one video (data/, frames/ likewise)
          _snapshots/run=<run_key>/<n>.json                       the merged files; which units: <n>-<hash>.parquet
          _commits/run=<run_key>/<unit_id>.json                   a unit exists once this does
          _dead/run=<run_key>/<unit_id>.json                      why a unit can't
          _staged/run=<run_key>/<video key>/                      units that wait for the others of their video
          _runs/<run_key>.json                                    how a run was made
"""
