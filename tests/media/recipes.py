"""The odd and the ordinary: every container, codec and timing that the decoders are held to."""

from tests.media.clips import AAC, CHIRP, H264, Recipe

BASE = Recipe("plain.mp4")
X265_PARAMETERS = "log-level=none:pools=1:frame-threads=1:keyint=20:bframes=3:b-adapt=0"
H265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", X265_PARAMETERS)
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30")
VP9_HIDDEN = ("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "5", "-auto-alt-ref", "1", "-lag-in-frames", "16")
AV1 = ("-c:v", "libsvtav1", "-preset", "12", "-g", "30", "-svtav1-params", "lp=1")
MPEG4 = ("-c:v", "mpeg4", "-bf", "2", "-g", "12", "-q:v", "3")
XVID = ("-c:v", "libxvid", "-bf", "2", "-q:v", "3")
OPEN_GOP = ("-c:v", "libx264", "-bf", "3", "-g", "15", "-x264-params", "open-gop=1:b-adapt=0:scenecut=0")
INTERLACED = ("-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1", "-g", "15")
REFRESH = ("-c:v", "libx264", "-intra-refresh", "1", "-g", "15")
OPUS = ("-c:a", "libopus", "-b:a", "64k")
MP3 = ("-c:a", "libmp3lame")
MPEG2 = ("-c:v", "mpeg2video", "-bf", "2")
MP2 = ("-c:a", "mp2")
WMA = ("-c:a", "wmav2", "-b:a", "48k")
VORBIS = ("-c:a", "libvorbis")
UNEVEN = ("-vf", "setpts='(N*N/75*0.6+N*0.4)/25/TB'", "-fps_mode", "passthrough")

FAST = [
    BASE,
    BASE.but("open_gop.ts", video=OPEN_GOP),
    BASE.but("h265.mov", video=(*H265, "-tag:v", "hvc1"), fps="30000/1001"),
    BASE.but("vp9.webm", video=VP9, sound_args=OPUS),
    BASE.but("av1.mkv", video=AV1),
    BASE.but("packed.avi", video=XVID, sound_args=MP3),
    BASE.but("h264.avi", sound_args=MP3),
    BASE.but("uneven.mkv", args=UNEVEN),
    BASE.but("fragments.mp4", args=("-movflags", "frag_keyframe+empty_moov"), sound=""),
    BASE.but("late_picture.mp4", args=("-vf", "setpts=PTS+1.5/TB")),
    BASE.but("ten_bit_odd.mp4", size=(91, 143), video=("-c:v", "libx264", "-pix_fmt", "yuv444p10le")),
    BASE.but("one.mp4", frames=1, sound=""),
    BASE.but("sound_first.mp4", args=("-map", "1:a", "-map", "0:v")),
]
SLOW = [
    BASE.but("plain.mov"),
    BASE.but("plain.mkv"),
    BASE.but("plain.ts"),
    BASE.but("sound_first.mkv", args=("-map", "1:a", "-map", "0:v")),
    BASE.but("sound_first.ts", args=("-map", "1:a", "-map", "0:v")),
    BASE.but("h265.mp4", video=H265),
    BASE.but("h265.mkv", video=H265),
    BASE.but("h265.ts", video=H265),
    BASE.but("vp9.mp4", video=VP9),
    BASE.but("vp9.mkv", video=VP9),
    BASE.but("vp9_hidden.webm", video=VP9_HIDDEN, sound_args=OPUS),
    BASE.but("av1.mp4", video=AV1),
    BASE.but("av1.webm", video=AV1, sound_args=OPUS),
    BASE.but("mpeg4.avi", video=MPEG4, sound_args=MP3),
    BASE.but("mpeg4.mp4", video=MPEG4),
    BASE.but("mpeg2.ts", video=(*MPEG2, "-q:v", "3"), sound_args=MP2),
    BASE.but("open_gop.mp4", video=OPEN_GOP),
    BASE.but("interlaced.ts", video=INTERLACED),
    BASE.but("refresh.mp4", video=REFRESH),
    BASE.but("refresh.ts", video=REFRESH),
    BASE.but("uneven.mp4", args=UNEVEN),
    BASE.but("ten_bit.mp4", video=("-c:v", "libx264", "-pix_fmt", "yuv420p10le")),
    BASE.but("full_chroma.mkv", video=("-c:v", "libx264", "-pix_fmt", "yuv444p")),
    BASE.but("two_seconds_a_frame.mp4", frames=3, fps="0.5", sound=CHIRP.format(d=6, r=22050)),
    BASE.but("sixty.mp4", fps="60", frames=150),
    BASE.but("late_picture.mkv", args=("-vf", "setpts=PTS+1.5/TB")),
]
"""Held to the same test, when there is time."""

NOISE_40_S = "anoisesrc=d=40:r=48000:a=0.4:seed=7"
LONG_SOUND = CHIRP.format(d=40, r=44100)
LONG = [
    BASE.but("long.mp4", frames=1000, sound=LONG_SOUND),
    BASE.but("long.mkv", frames=1000, sound=CHIRP.format(d=40, r=48000), sound_args=OPUS),
    BASE.but("long_open_gop.mkv", frames=1000, video=OPEN_GOP, sound=LONG_SOUND, sound_args=("-c:a", "flac")),
    BASE.but("long.ts", frames=1000, video=H265, sound=LONG_SOUND),
    BASE.but("long.avi", frames=1000, video=MPEG4, sound=CHIRP.format(d=40, r=22050), sound_args=MP3),
    BASE.but("long.webm", frames=1000, video=VP9, sound=CHIRP.format(d=40, r=48000), sound_args=VORBIS),
    BASE.but("long.mpg", frames=1000, video=MPEG2, sound=NOISE_40_S, sound_args=MP2),
    BASE.but("long_packed.avi", frames=1000, video=XVID, sound=LONG_SOUND, sound_args=MP3),
    BASE.but("long.flv", frames=1000, sound=LONG_SOUND),
    BASE.but("long_fragments.mp4", frames=1000, sound=LONG_SOUND, args=("-movflags", "frag_keyframe+empty_moov")),
    BASE.but("long_sound_first.mkv", frames=1000, sound=LONG_SOUND, args=("-map", "1:a", "-map", "0:v")),
    BASE.but("long_gop.mp4", frames=1000, video=(*H264[:4], "-g", "600"), sound=LONG_SOUND, sound_args=AAC),
]
"""Cut into units; the first is also in the fast tests."""

MADE_UP_NOISE = [
    BASE.but("substituted.mp4", frames=1000, sound=NOISE_40_S, sound_args=("-c:a", "aac", "-b:a", "64k")),
    BASE.but("dithered.mkv", frames=1000, sound=NOISE_40_S, sound_args=("-c:a", "ac3", "-b:a", "64k")),
    BASE.but("coded_noise.asf", frames=1000, video=MPEG4, sound=NOISE_40_S, sound_args=WMA),
    BASE.but("substituted.ts", frames=1000, sound=NOISE_40_S, sound_args=("-c:a", "aac", "-b:a", "32k")),
]
"""Sound of which decoders make up a part."""

WMV = BASE.but("wmv2.wmv", video=("-c:v", "wmv2"), sound_args=WMA)
OGV = BASE.but("theora.ogv", video=("-c:v", "libtheora"), sound_args=VORBIS)
MPG = BASE.but("mpeg2.mpg", video=MPEG2, sound_args=MP2)
"""Containers of their own kind, with nothing odd about them."""
