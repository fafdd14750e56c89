#!/usr/bin/env python3
"""Turn a terminal's output into a picture: scripts/text_to_svg.py [--title TEXT] < output.txt > docs/img/output.svg

Understands colours and bold (SGR sequences); other escapes are dropped. Lines longer than --columns are cut.
"""
import argparse, html, re, sys

COLOURS = {30: "#484f58", 31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea", 37: "#c9d1d9"}
DIM = "#8b949e"
CHAR_WIDTH, LINE_HEIGHT, MARGIN, BAR = 7.8, 18, 16, 34


def spans(line):
    """Pieces of a line with their style: (text, colour or None, bold)."""
    colour, bold = None, False
    for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z])", line):
        sgr = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if sgr:
            for code in map(int, (sgr[1] or "0").split(";")):
                if code == 0:
                    colour, bold = None, False
                elif code == 1:
                    bold = True
                elif code == 2:
                    colour = DIM
                elif code in (22, 39):
                    colour, bold = (colour, False) if code == 22 else (None, bold)
                elif code in COLOURS or code - 60 in COLOURS:
                    colour = COLOURS.get(code) or COLOURS[code - 60]
        elif piece and not piece.startswith("\x1b"):
            yield piece, colour, bold


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--title", default="")
    parser.add_argument("--columns", type=int, default=120)
    options = parser.parse_args()
    lines = sys.stdin.read().replace("\r", "").rstrip("\n").split("\n")
    width = options.columns * CHAR_WIDTH + 2 * MARGIN
    height = BAR + len(lines) * LINE_HEIGHT + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}">',
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>',
        f'<text x="{width / 2:.0f}" y="22" fill="#8b949e" font-family="sans-serif" font-size="13" text-anchor="middle">{html.escape(options.title)}</text>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13" fill="#c9d1d9" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        y, column = BAR + MARGIN + (number + 0.7) * LINE_HEIGHT, 0
        for text, colour, bold in spans(line):
            text = text[: max(0, options.columns - column)]
            if text.strip():
                # The length is given, so that every font keeps the columns.
                style = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if bold else "")
                x = MARGIN + column * CHAR_WIDTH
                out.append(
                    f'<text x="{x:.1f}" y="{y:.1f}" textLength="{len(text) * CHAR_WIDTH:.1f}"{style}>{html.escape(text)}</text>'
                )
            column += len(text)
    out.append("</g>\n</svg>")
    print("\n".join(out))


main()
