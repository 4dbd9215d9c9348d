"""AVSBench (Zhou et al., ECCV 2022, arXiv 2207.05042; AVSS: arXiv 2301.13190) as it is given out, on disk or S3.

S4    s4_meta_data.csv    name,start_time,category,split
      s4_data/visual_frames/<split>/<category>/<name>/<name>_{1..5}.png
             /gt_masks/<split>/<category>/<name>/<name>_{1..5}.png, in train `_1.png` only
             /audio_wav/<split>/<category>/<name>.wav, /audio_log_mel/….pkl
MS3   ms3_meta_data.csv   video_id,split
      ms3_data/visual_frames/<id>/<id>.mp4_{1..5}.png
              /gt_masks/<split>/<id>/<id>_{1..5}.png
              /audio_wav/<split>/<id>.wav, /audio_log_mel/….pkl
AVSS  metadata.csv        vid,uid,s_min,s_sec,a_obj,split,label; label2idx.json: class → index
      <label>/<uid>/frames/{0..}.jpg, labels_rgb/{0..}.png, audio.wav; label is v1s or v1m (5 s) or v2 (10 s)

The composite benchmark has the trees of S4 and MS3, and a manifest beside them.

findings.py     what can be wrong with a copy
metadata.py     the tables, their known dirt handled
layout.py       where the files of a clip lie
pictures.py     frames, binary masks, colour masks
log_mels.py     pickled log-mels without running what is pickled
sound.py        wav first, then log-mels
truth.py        the objects of the composite benchmark, and its manifest
clips.py        the data set: its clips, and one of them decoded
check.py        a whole copy against its metadata
"""
