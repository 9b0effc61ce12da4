"""Draw the clean graphemes that are part of the package, from a Bengali font.

    python benchmarks/draw_graphemes.py --font Lohit-Bengali.ttf [--out mlkit/samples/graphemes]

Pillow must have raqm (`python -m PIL.features` says so), for a conjunct is shaped by the font's own
tables. The same font, Pillow and raqm give the same files, byte for byte.
"""
import argparse
import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mlkit.recipes.graphemes import CELL, HEADS, SHEET, compose

COMPONENTS = dict(zip(HEADS, (
    "ক খ গ জ ট ত দ ন প ব ম ল স ক্ষ ন্ত ষ্ট".split(),
    "0 া ি ী ু ূ ে".split(),
    "0 ঁ র্ ্য ্র".split())))


def draw(
    font: Path,   # a TrueType file
    size: int,    # of the letters, in pixels
) -> Image.Image:  # a root in each row, and in it all vowels, each with all consonants
    "Draw the sheet."
    face = ImageFont.truetype(font, size, layout_engine=ImageFont.Layout.RAQM)
    roots, vowels, consonants = COMPONENTS.values()
    height, width = CELL
    sheet = Image.new("L", (width * len(vowels) * len(consonants), height * len(roots)))
    pen = ImageDraw.Draw(sheet)
    for row, root in enumerate(roots):
        for column, (vowel, consonant) in enumerate((v, c) for v in vowels for c in consonants):
            text = compose(root, vowel, consonant)
            left, _, right, _ = pen.textbbox((0, 0), text, font=face, anchor="ls")
            middle = width * column + (width - right - left) / 2
            pen.text((round(middle), height * row + 47), text, font=face, fill=255, anchor="ls")
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=SHEET.parent)
    args = parser.parse_args()
    draw(args.font, 40).save(args.out / SHEET.name, optimize=True)
    with open(args.out / "class_map.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["component_type", "label", "component"])
        writer.writerows([head, i, o] for head, components in COMPONENTS.items()
                         for i, o in enumerate(components))
