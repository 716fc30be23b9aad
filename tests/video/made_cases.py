"""The odd files that the comparison with FFmpeg decodes, by kind."""

import math
import pathlib

from tests.video.ffmpeg_reference import run
from tests.video.made_videos import Made, Sources, damaged, encoded, joined, with_matrix

X264 = ("-c:v", "libx264")
MPEG2 = ("-c:v", "mpeg2video", "-b:v", "2M")
X265 = ("-c:v", "libx265", "-x265-params", "log-level=none")
PAL = {"size": "720x576", "seconds": 2}


def containers() -> list[Made]:
    """Codecs and containers without anything odd, by every suffix that is taken for a video."""
    kinds = {
        "plain.mp4": X264,
        "plain.m4v": X264,
        "plain.mov": X264,
        "plain.qt": (*X264, "-f", "mov"),
        "plain.mkv": X264,
        "plain.flv": X264,
        "plain.f4v": X264,
        "plain.ts": X264,
        "plain.mts": (*X264, "-f", "mpegts"),
        "plain.m2ts": X264,
        "hevc.mp4": X265,
        "hevc.mkv": X265,
        "hevc.ts": X265,
        "av1.mp4": ("-c:v", "libsvtav1", "-preset", "12"),
        "av1.webm": ("-c:v", "libaom-av1", "-cpu-used", "8"),
        "vp8.webm": ("-c:v", "libvpx", "-b:v", "1M"),
        "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "1M"),
        "vp9.mkv": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "1M"),
        "mpeg4.mp4": ("-c:v", "mpeg4", "-q:v", "3"),
        "mpeg4_b.mp4": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "3"),
        "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "3"),
        "msmpeg4.avi": ("-c:v", "msmpeg4", "-q:v", "3"),
        "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
        "mjpeg.mov": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
        "prores.mov": ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"),
        "ffv1.mkv": ("-c:v", "ffv1"),
        "mpeg1.mpg": ("-c:v", "mpeg1video", "-b:v", "2M"),
        "mpeg2.mpg": MPEG2,
        "mpeg2.mpeg": (*MPEG2, "-f", "vob"),
        "mpeg2.vob": MPEG2,
        "mpeg2.ts": MPEG2,
        "theora.ogv": ("-c:v", "libtheora", "-q:v", "8"),
        "flv1.flv": ("-c:v", "flv", "-q:v", "3"),
        "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "3"),
        "lossless.gif": ("-pix_fmt", "rgb8"),
    }
    files = [Made(name, encoded(*options)) for name, options in kinds.items()]
    files.append(Made("mpeg2.mxf", encoded(*MPEG2, size="720x576", seconds=2)))
    files.append(Made("h263.3gp", encoded("-c:v", "h263", size="176x144")))
    files.append(Made("dvd.mxf", encoded(*MPEG2, "-bf", "2", size="720x576", seconds=2)))
    return files


def decoding_order() -> list[Made]:
    """Containers that keep the order of decoding only."""
    h264 = {"b3": ("-bf", "3"), "b0": ("-bf", "0"), "b16": ("-bf", "16", "-refs", "6"),
            "open": ("-bf", "3", "-x264-params", "open-gop=1:keyint=20"),
            "pyramid": ("-bf", "5", "-x264-params", "b-pyramid=2")}  # fmt: skip
    xvid = ("-c:v", "libxvid", "-q:v", "3", "-g", "25")
    long = {"seconds": 5}
    return [
        *(Made(f"h264_{name}.avi", encoded(*X264, *options, **long))
          for name, options in h264.items()),
        Made("h264_b3.divx", encoded(*X264, "-bf", "3", "-f", "avi", **long)),
        Made("xvid.avi", encoded(*xvid, size="128x96")),
        Made("xvid_b.avi", encoded(*xvid, "-bf", "2", size="128x96")),
        Made("mpeg4_b.avi", encoded("-c:v", "mpeg4", "-bf", "2", "-q:v", "3")),
        Made("mpeg4_b5.divx", encoded("-c:v", "mpeg4", "-bf", "5", "-q:v", "3", "-f", "avi")),
        Made("xvid_b.mkv", encoded(*xvid, "-bf", "2", size="128x96"), remark="too late"),
        Made("xvid_b.mp4", encoded(*xvid, "-bf", "2", size="128x96"), remark="too late"),
        Made("copied_b.avi", _remuxed("-bf", "3")),
        Made("ntsc_b.avi", encoded(*X264, "-bf", "3", rate="30000/1001")),
    ]  # fmt: skip


def _remuxed(*options: str):
    """MP4 to AVI without encoding, as cutters of the early web did."""

    def make(path: pathlib.Path, sources: Sources) -> None:
        part = sources.part("copied.mp4", *X264, *options)
        run("-i", part, "-c", "copy", "-bsf:v", "h264_mp4toannexb", path)

    return make


def orientations() -> list[Made]:
    """Display matrices in track headers, in projections and in H.264's own messages."""
    w, h = 160, 120
    turn = math.sqrt(0.5)
    matrices = {
        "upright": (1, 0, 0, 0, 1, 0, 0, 0, 1),
        "mirrored": (-1, 0, 0, 0, 1, 0, w, 0, 1),
        "upside_down": (-1, 0, 0, 0, -1, 0, w, h, 1),
        "flipped": (1, 0, 0, 0, -1, 0, 0, h, 1),
        "transposed": (0, 1, 0, 1, 0, 0, 0, 0, 1),
        "clockwise": (0, 1, 0, -1, 0, 0, h, 0, 1),
        "transverse": (0, -1, 0, -1, 0, 0, h, w, 1),
        "anticlockwise": (0, -1, 0, 1, 0, 0, 0, w, 1),
        "mirrored_no_offset": (-1, 0, 0, 0, 1, 0, 0, 0, 1),
    }
    no_turn = ("-noautorotate",)
    odd = "display matrix"
    return [
        *(Made(f"{name}.mp4", with_matrix(*matrix)) for name, matrix in matrices.items()),
        Made("zeros.mp4", with_matrix(*[0] * 9), no_turn, remark=odd),
        Made("45_degrees.mp4", with_matrix(turn, turn, 0, -turn, turn, 0, 0, 0, 1), no_turn,
             remark=odd),
        Made("sheared.mp4", with_matrix(1, 0.5, 0, 0, 1, 0, 0, 0, 1), no_turn, remark=odd),
        *(Made(f"turned_{angle}.mov", _turned(angle)) for angle in (90, 180, 270)),
        Made("turned_90.mkv", _turned(90)),
        Made("sei_90.mp4", encoded(*X264, "-bsf:v", "h264_metadata=display_orientation=insert"
                                   ":rotate=90")),
        Made("sei_mirrored.ts", encoded(*X264, "-bsf:v", "h264_metadata=display_orientation=insert"
                                        ":flip=horizontal")),
    ]  # fmt: skip


def _turned(angle: int):
    def make(path: pathlib.Path, sources: Sources) -> None:
        part = sources.part("turn.mp4", *X264)
        run("-display_rotation", str(angle), "-i", part, "-c", "copy", path)

    return make


def clocks() -> list[Made]:
    """Clocks that go back, jump, wrap or begin late; rates and gaps."""
    first, second = ("a.ts", X264), ("b.ts", (*X264, "-vf", "negate"))
    third = ("c.ts", (*X264, "-output_ts_offset", "1000"))
    moved = ("d.ts", (*X264, "-vf", "negate", "-mpegts_service_id", "7", "-streamid", "0:600",
                      "-mpegts_pmt_start_pid", "500"))
    renumbered = ("e.ts", (*X264, "-vf", "negate", "-streamid", "0:600"))
    small = ("f.ts", (*X264, "-vf", "scale=80:60"))
    mpg, mpg2 = ("a.mpg", MPEG2), ("b.mpg", (*MPEG2, "-vf", "negate"))
    mts2, mts2b = ("a2.ts", MPEG2), ("b2.ts", (*MPEG2, "-bf", "2", "-vf", "negate"))
    flv, flv2 = ("a.flv", X264), ("b.flv", (*X264, "-vf", "negate"))
    avi, avi2 = ("a.avi", X264), ("b.avi", (*X264, "-vf", "negate"))
    mkv, mkv2 = ("a.mkv", X264), ("b.mkv", (*X264, "-vf", "negate"))
    back, other = "clock changes", "programme"
    gaps = "select='not(between(n,20,44))*not(between(n,70,72))'"
    return [
        Made("joined.ts", joined(first, second), remark=back),
        Made("joined_same.ts", joined(first, first), remark=back),
        Made("joined_three.ts", joined(first, second, first), remark=back),
        Made("joined_back_and_on.ts", joined(third, first, third), remark=back),
        Made("joined_sizes.ts", joined(first, small), parts=("a.ts", "f.ts"), remark=back),
        Made("joined_mpeg2.ts", joined(mts2, mts2b), remark=back),
        Made("joined_b_first.ts", joined(mts2b, mts2), remark=back),
        Made("joined_codecs.ts", joined(first, mts2), remark="damaged packets"),
        Made("joined.mpg", joined(mpg, mpg2), remark=back),
        Made("joined_three.mpg", joined(mpg, mpg2, mpg), remark=back),
        Made("joined.vob", joined(mpg, mpg2), remark=back),
        Made("ahead.ts", joined(first, third), remark=back),
        Made("programme.ts", joined(first, moved), parts=("a.ts", "d.ts"), remark=other),
        Made("renumbered.ts", joined(first, renumbered), parts=("a.ts", "e.ts"), remark=other),
        Made("programmes.ts", joined(first, moved, second), parts=("a.ts", "d.ts", "b.ts"),
             remark=other),
        Made("programmes_three.ts", joined(first, moved, renumbered, second, moved),
             parts=("a.ts", "d.ts", "e.ts", "b.ts", "d.ts"), remark=other),
        Made("joined.flv", joined(flv, flv2), remark="bytes lie behind"),
        Made("joined.avi", joined(avi, avi2)),
        Made("joined.mkv", joined(mkv, mkv2), parts=("a.mkv", "b.mkv"), remark=back),
        Made("wrap.ts", encoded(*X264, "-output_ts_offset", "95441.7")),
        Made("wrap_late.ts", encoded(*X264, "-output_ts_offset", "95439.9")),
        Made("wrap_mpeg2.ts", encoded(*MPEG2, "-output_ts_offset", "95441.7")),
        Made("wrap.mpg", encoded(*MPEG2, "-output_ts_offset", "95441.7")),
        Made("late.mp4", encoded(*X264, "-output_ts_offset", "7.5")),
        Made("late.mkv", encoded(*X264, "-output_ts_offset", "7.5")),
        Made("late.ts", encoded(*X264, "-output_ts_offset", "7.5")),
        Made("edited.mp4", _edited),
        Made("gaps.mp4", encoded(*X264, "-vf", gaps, "-fps_mode", "passthrough")),
        Made("gaps.mkv", encoded(*X264, "-vf", gaps, "-fps_mode", "passthrough")),
        Made("gaps.ts", encoded(*X264, "-vf", gaps, "-fps_mode", "passthrough")),
        *(Made(f"rate_{name}.mp4", encoded(*X264, rate=rate))
          for name, rate in (("23.976", "24000/1001"), ("59.94", "60000/1001"), ("12.5", "25/2"),
                             ("1", "1"), ("0.5", "1/2"))),
        Made("rate_23.976.ts", encoded(*X264, rate="24000/1001")),
        Made("one_group.mp4", encoded(*X264, "-g", "1000", seconds=10)),
        Made("one_group.ts", encoded(*X264, "-g", "1000", seconds=10)),
        Made("groups.ts", encoded(*X264, "-g", "60", seconds=10)),
        Made("groups.mpg", encoded(*MPEG2, "-g", "15", "-bf", "2", seconds=10)),
        Made("open_groups.mp4", encoded(*X264, "-x264-params", "open-gop=1:keyint=30", seconds=10)),
        Made("open_groups.ts", encoded(*X264, "-x264-params", "open-gop=1:keyint=30", seconds=10)),
        Made("open_groups_hevc.mp4", encoded("-c:v", "libx265", "-x265-params",
                                             "log-level=none:keyint=30:open-gop=1", seconds=10)),
        Made("intra_refresh.mp4", encoded(*X264, "-x264-params", "intra-refresh=1:keyint=40",
                                          seconds=10)),
        Made("intra_refresh.ts", encoded(*X264, "-x264-params", "intra-refresh=1:keyint=40",
                                         seconds=10)),
        Made("raw.h264", encoded(*X264, "-bf", "0")),
        Made("interlaced.ts", encoded(*X264, "-flags", "+ilme+ildct", "-x264-params", "tff=1",
                                      **PAL)),
        Made("interlaced.mpg", encoded(*MPEG2, "-flags", "+ilme+ildct", **PAL)),
        Made("with_sound.ts", _with_sound),
        Made("with_sound.mp4", _with_sound),
        Made("joined_sound.ts", _joined_sound, remark=back),
    ]  # fmt: skip


def _edited(path: pathlib.Path, sources: Sources) -> None:
    """Cut without encoding: the edit list leaves out frames that others lean on."""
    part = sources.part("edit.mp4", *X264, "-g", "50", seconds=6)
    run("-ss", "1.3", "-i", part, "-c", "copy", path)


def _with_sound(path: pathlib.Path, sources: Sources) -> None:
    run("-i", sources.pictures(), "-itsoffset", "-0.3", "-i", sources.sound(), "-pix_fmt",
        "yuv420p", *X264, "-c:a", "aac", path)  # fmt: skip


def _joined_sound(path: pathlib.Path, sources: Sources) -> None:
    part = path.with_name(f"part_{path.name}")
    run("-i", sources.pictures(), "-i", sources.sound(), "-pix_fmt", "yuv420p", *X264, "-c:a",
        "aac", part)  # fmt: skip
    path.write_bytes(2 * part.read_bytes())
    part.unlink()


def pixel_aspects() -> list[Made]:
    """Pixels that are not square."""

    def pixels(ratio: str, *options: str, **source):
        return encoded("-vf", f"setsar={ratio}", *options, **source)

    return [
        Made("wide.mp4", pixels("64/45", *X264, **PAL)),
        Made("wide.mkv", pixels("64/45", *X264, **PAL)),
        Made("wide.ts", pixels("64/45", *MPEG2, **PAL)),
        Made("wide.mpg", pixels("64/45", *MPEG2, **PAL)),
        Made("wide.avi", pixels("64/45", "-c:v", "mpeg4", "-q:v", "3", **PAL)),
        Made("narrow.mp4", pixels("8/9", *X264, size="720x480", seconds=2)),
        Made("anamorphic.webm", pixels("2/1", "-c:v", "libvpx-vp9", "-cpu-used", "8")),
        Made("wide_turned.mov", _wide_turned),
    ]


def _wide_turned(path: pathlib.Path, sources: Sources) -> None:
    part = sources.part("wide_turn.mp4", *X264, "-vf", "setsar=4/3")
    run("-display_rotation", "90", "-i", part, "-c", "copy", path)


def streams() -> list[Made]:
    """Several streams, cover art, what cannot be decoded."""
    return [
        Made("two.mp4", _two("mp4"), stream="0:v:1"),
        Made("two.mkv", _two("mkv", "-disposition:v", "0")),
        Made("two_default.mkv", _two("mkv", "-disposition:v:0", "0", "-disposition:v:1",
                                     "default")),
        Made("two_small_default.mkv", _two("mkv")),
        Made("two_programmes.ts", _two("ts"), stream="0:v:1"),
        Made("cover.mp4", _covered("-map", "0", "-map", "1", "-c:v:1", "png"), stream="0:v:0"),
        Made("cover_first.mp4", _cover_first),
        Made("cover.mkv", _attached),
        Made("song.m4a", _song, refused="only"),
        Made("song.mp3", _song, refused="only"),
        Made("unknown.mp4", _unknown, refused="decode"),
        Made("sound_only.mp4", _sound_only, refused="only audio"),
    ]  # fmt: skip


def _two(kind: str, *options: str):
    def make(path: pathlib.Path, sources: Sources) -> None:
        run("-i", sources.pictures("160x120"), "-i", sources.pictures("320x240"), "-map", "0",
            "-map", "1", *X264, "-pix_fmt", "yuv420p", *options, path)  # fmt: skip

    return make


def _covered(*options: str):
    def make(path: pathlib.Path, sources: Sources) -> None:
        run("-i", sources.pictures(), "-i", sources.cover(), *options, "-c:v:0", "libx264",
            "-pix_fmt:v:0", "yuv420p", "-disposition:v:1", "attached_pic", path)  # fmt: skip

    return make


def _cover_first(path: pathlib.Path, sources: Sources) -> None:
    run("-i", sources.cover(), "-i", sources.pictures(), "-map", "0", "-map", "1", "-c:v:0", "png",
        "-c:v:1", "libx264", "-pix_fmt:v:1", "yuv420p", "-disposition:v:0", "attached_pic",
        "-disposition:v:1", "default", path)  # fmt: skip


def _attached(path: pathlib.Path, sources: Sources) -> None:
    run("-i", sources.pictures(), *X264, "-pix_fmt", "yuv420p", "-attach", sources.cover(),
        "-metadata:s:t", "mimetype=image/png", path)  # fmt: skip


def _song(path: pathlib.Path, sources: Sources) -> None:
    run("-i", sources.sound(), "-i", sources.cover(), "-map", "0", "-map", "1", "-c:v", "png",
        "-disposition:v:0", "attached_pic", path)  # fmt: skip


def _sound_only(path: pathlib.Path, sources: Sources) -> None:
    run("-i", sources.sound(), "-c:a", "aac", path)


def _unknown(path: pathlib.Path, sources: Sources) -> None:
    """A sample entry of a codec that nobody knows."""
    encoded(*X264)(path, sources)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))


def colours() -> list[Made]:
    """Matrices, ranges, depths and samplings."""
    tagged = {
        "601": ("bt470bg", "tv"), "601_full": ("bt470bg", "pc"), "709": ("bt709", "tv"),
        "709_full": ("bt709", "pc"), "2020": ("bt2020nc", "tv"), "240m": ("smpte240m", "tv"),
    }  # fmt: skip
    depths = {
        "444.mp4": ("libx264", "yuv444p"), "422.mp4": ("libx264", "yuv422p"),
        "10bit.mp4": ("libx264", "yuv420p10le"), "12bit.mkv": ("libx265", "yuv420p12le"),
        "422_10bit.mkv": ("libx264", "yuv422p10le"), "rgb.mkv": ("libx264rgb", "rgb24"),
        "grey.mkv": ("libx264", "gray"), "full.mp4": ("libx264", "yuvj420p"),
        "gbrp.mkv": ("ffv1", "gbrp"), "vp9_10bit.webm": ("libvpx-vp9", "yuv420p10le"),
        "av1_10bit.mkv": ("libsvtav1", "yuv420p10le"), "hevc_grey10.mkv": ("libx265", "gray10le"),
        "alpha.mov": ("prores_ks", "yuva444p10le"), "yuv410.avi": ("rawvideo", "yuv420p"),
    }  # fmt: skip
    quiet = {"libx265": ("-x265-params", "log-level=none"), "libvpx-vp9": ("-cpu-used", "8"),
             "libsvtav1": ("-preset", "12")}  # fmt: skip
    files = [
        Made(f"colour_{name}.mp4",
             encoded("-vf", f"scale=out_color_matrix={matrix}:out_range={span},format=yuv420p",
                     *X264, "-colorspace", matrix, "-color_range", span))
        for name, (matrix, span) in tagged.items()
    ]  # fmt: skip
    files += [
        Made(f"depth_{name}", encoded("-c:v", codec, "-pix_fmt", fmt, *quiet.get(codec, ())))
        for name, (codec, fmt) in depths.items()
    ]
    files.append(Made("untagged_hd.mp4", encoded(*X264, size="1280x720", seconds=2)))
    files.append(Made("odd_size.mkv", encoded(*X264, "-pix_fmt", "yuv444p", size="161x121")))
    return files


def damages() -> list[Made]:
    """Files that were cut short or hold what they should not."""
    groups = {"seconds": 6}
    mp4 = encoded(*X264, "-g", "25", "-movflags", "faststart", **groups)
    mkv = encoded(*X264, "-g", "25", **groups)
    avi = encoded("-c:v", "mpeg4", "-q:v", "3", "-g", "25", **groups)
    mpg = encoded(*MPEG2, "-g", "15", **groups)
    return [
        Made("cut_short.mp4", damaged(mp4, 0.7, 1), remark="damaged"),
        Made("cut_short.mkv", damaged(mkv, 0.7, 1)),
        Made("cut_short.ts", damaged(mkv, 0.7, 1)),
        Made("cut_short.avi", damaged(avi, 0.7, 1)),
        Made("cut_short.mpg", damaged(mpg, 0.7, 1)),
        Made("begins_late.ts", damaged(mkv, 0, 0.25)),
        Made("begins_late.mpg", damaged(mpg, 0, 0.25)),
        Made("hole.mp4", damaged(mp4, 0.5, 0.503, flip=True)),
        Made("hole.mkv", damaged(mkv, 0.5, 0.503, flip=True)),
        Made("hole.ts", damaged(mkv, 0.5, 0.52)),
        Made("hole.avi", damaged(avi, 0.5, 0.503, flip=True)),
        Made("hole.mpg", damaged(mpg, 0.5, 0.503, flip=True)),
    ]


def all_cases() -> list[Made]:
    """Every kind; each file has a name of its own."""
    return [
        *containers(), *decoding_order(), *orientations(), *clocks(), *pixel_aspects(),
        *streams(), *colours(), *damages(),
    ]  # fmt: skip
