"""The composite benchmark on disk or S3: AVSBench's trees, with the truth about every object beside them.

s4_meta_data.csv            name,start_time,category,split
s4_data/visual_frames       <split>/<category>/<name>/<name>_{1..5}.png
       /gt_masks            the same; in train `_1.png` only
       /audio_wav           <split>/<category>/<name>.wav
ms3_meta_data.csv           video_id,split
ms3_data/visual_frames      <name>/<name>.mp4_{1..5}.png
        /gt_masks           <split>/<name>/<name>_{1..5}.png
        /audio_wav          <split>/<name>.wav
videos/<setting>/<split>/<name>.mp4
instances/<setting>/<split>/<name>.json
categories.json, card.md, contact_sheet.jpg
plan.json                   written first: which benchmark this is
manifest.parquet            written last: without it the build isn't finished
"""
