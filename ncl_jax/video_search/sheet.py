"""What a search has found as one picture: thumbnails with rank and id, best first."""

import io
import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps
from werkzeug.exceptions import HTTPException

from ncl_jax.errors import InputError
from ncl_jax.files import one_line, replaced
from ncl_jax.index import SearchResult
from ncl_jax.video import decode
from ncl_jax.video.decode import VideoError
from ncl_jax.video_search.snapshot import IndexSnapshot

COLUMNS = 5
MOST = 1000
"""Hits on a sheet; a JPEG has at most 65,535 rows of pixels."""
_WIDTH, _HEIGHT, _LINE, _GAP = 240, 135, 20, 12
_BACK, _INK, _BLANK = "#ffffff", "#1b1d20", "#d9dde2"
_QUALITY = 85


def write(
    path: str | os.PathLike[str], shown: IndexSnapshot, names: Sequence[str], found: SearchResult
) -> None:
    """Draws the hits of each query below its name.

    Args:
      path: of the JPEG.
      shown: the index that was searched.
      names: of the queries.
      found: their hits.

    Raises:
      ValueError: more than `MOST` hits.
      OSError: it cannot be written.
    """
    if found.rows.size > MOST:
        raise InputError(
            f"--sheet: expected at most {MOST:,} hits, got {found.rows.size:,}; lower -k"
        )
    tiles = [[_tile(shown, row, rank) for rank, row in enumerate(rows, start=1)]
             for rows in found.rows.tolist()]  # fmt: skip
    sheet = draw([one_line(name) for name in names], tiles)
    with replaced(path) as stream:
        sheet.save(stream, "JPEG", quality=_QUALITY)


def draw(names: Sequence[str], tiles: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Tiles of one size in rows of `COLUMNS`, those of each name below it."""
    font = _font()
    columns = min(COLUMNS, max(1, *map(len, tiles)))
    width = _GAP + columns * (_WIDTH + _GAP)
    height = _GAP + sum(_LINE + _GAP + -(-len(row) // columns) * _step() for row in tiles)
    sheet = Image.new("RGB", (width, height), _BACK)
    pen, top = ImageDraw.Draw(sheet), _GAP
    for name, row in zip(names, tiles, strict=True):
        pen.text((_GAP, top), _cut(name, font, width - 2 * _GAP), _INK, font)
        top += _LINE + _GAP
        for place, tile in enumerate(row):
            down, right = divmod(place, columns)
            sheet.paste(tile, (_GAP + right * (_WIDTH + _GAP), top + down * _step()))
        top += -(-len(row) // columns) * _step()
    return sheet


def _step() -> int:
    return _HEIGHT + _LINE + _GAP


def _tile(shown: IndexSnapshot, row: int, rank: int) -> Image.Image:
    """A thumbnail, or why there is none, over rank and id."""
    tile = Image.new("RGB", (_WIDTH, _HEIGHT + _LINE), _BACK)
    font, pen = _font(), ImageDraw.Draw(tile)
    pen.rectangle((0, 0, _WIDTH - 1, _HEIGHT - 1), _BLANK)
    try:
        jpeg = shown.picture(row, lambda file, at: decode.jpeg_at(file, at, _HEIGHT, _QUALITY))
        with Image.open(io.BytesIO(jpeg)) as opened:
            picture = ImageOps.contain(opened.convert("RGB"), (_WIDTH, _HEIGHT))
        tile.paste(picture, ((_WIDTH - picture.width) // 2, (_HEIGHT - picture.height) // 2))
    except (HTTPException, VideoError) as error:
        why = error.description or "" if isinstance(error, HTTPException) else str(error)
        for number, line in enumerate(_lines(why, font, _WIDTH - 8)[: _HEIGHT // _LINE]):
            pen.text((4, 2 + number * _LINE), line, _INK, font)
    label = _cut(f"{rank}  {one_line(shown.index.ids[row])}", font, _WIDTH)
    pen.text((0, _HEIGHT + 2), label, _INK, font)
    return tile


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or its beginning and end where it is too long: both tell files apart."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return ""


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Words in lines of that width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font, width))
    return [line for line in lines if line]
