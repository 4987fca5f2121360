"""Lines on a logarithmic axis, and bars beside names, as SVG: enough for growth and for comparison, and no library."""
import math
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 240, 58, 40, 34, 16
# Bars: room for the names, a panel for each column, a row for each name.
NAMES, PANEL, GAP, ROW, HEAD = 112, 150, 14, 17, 40
OURS, PEER, REFERENCE = "#26a", "#9ab", "#ccc"


def place(value, least, most, logarithmic):
    if logarithmic:
        value, least, most = math.log10(value), math.log10(least), math.log10(most)
    return 0.5 if most == least else (value - least) / (most - least)


def label(number):
    return f"{number:,.0f}" if abs(number) >= 10 else f"{number:.2g}"


def canvas(width, height, title):
    return [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="11" fill="#333">', f"<title>{escape(title)}</title>", f'<rect width="{width}" height="{height}" fill="#fff"/>']


def write(path, svg):
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg)


def line(title, axis, points):
    """points: [(x, median, least, most)]; the y axis begins at 0."""
    xs = [x for x, *_ in points]
    top = max(most for *_, most in points) * 1.15 or 1
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = lambda value: LEFT + width * place(value, min(xs), max(xs), True)
    y = lambda value: TOP + height * (1 - value / top)
    out = [*canvas(WIDTH, HEIGHT, title), f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>']
    for step in range(5):
        value = top * step / 4
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{label(value)}</text>')
    for value in xs:
        out.append(f'<text x="{x(value):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{label(value)}</text>')
    out.append(f'<text x="{LEFT + width / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axis)}</text>')
    for at, _, least, most in points:
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y(least):.1f}" y2="{y(most):.1f}" stroke="#8ab"/>')
    path = " ".join(f"{x(at):.1f},{y(median):.1f}" for at, median, *_ in points)
    out.append(f'<polyline points="{path}" fill="none" stroke="{OURS}" stroke-width="2"/>')
    out += [f'<circle cx="{x(at):.1f}" cy="{y(median):.1f}" r="3" fill="{OURS}"/>' for at, median, *_ in points]
    return "\n".join([*out, "</svg>", ""])


def colour(name):
    if name.startswith(("ours", "relay-")):
        return OURS
    return REFERENCE if name.startswith(("naive", "direct")) else PEER


def bars(title, names, columns):
    """columns: [(head, {name: (median, least, most)})], a panel each, whose axis begins at 0. Ours is dark, what is no peer pale."""
    width, height = NAMES + len(columns) * (PANEL + GAP), HEAD + ROW * len(names) + 8
    out = [*canvas(width, height, title), f'<text x="6" y="16" font-size="13">{escape(title)}</text>']
    for row, name in enumerate(names):
        weight = ' font-weight="bold"' if colour(name) == OURS else ""
        out.append(f'<text x="{NAMES - 6}" y="{HEAD + ROW * row + 12}" text-anchor="end"{weight}>{escape(name)}</text>')
    for column, (head, found) in enumerate(columns):
        left = NAMES + column * (PANEL + GAP)
        # The figure stands right of its bar.
        scale = (PANEL - 42) / (max((most for *_, most in found.values()), default=0) or 1)
        out.append(f'<text x="{left}" y="{HEAD - 8}">{escape(head)}</text><line x1="{left}" x2="{left}" y1="{HEAD - 2}" y2="{height - 6}" stroke="#ddd"/>')
        for row, name in enumerate(names):
            if name not in found:
                continue
            median, least, most = found[name]
            top = HEAD + ROW * row
            out.append(f'<rect x="{left}" y="{top + 2}" width="{median * scale:.1f}" height="{ROW - 5}" fill="{colour(name)}"/>')
            if most > least:
                out.append(f'<line x1="{left + least * scale:.1f}" x2="{left + most * scale:.1f}" y1="{top + ROW / 2 - 0.5}" y2="{top + ROW / 2 - 0.5}" stroke="#333"/>')
            out.append(f'<text x="{left + most * scale + 4:.1f}" y="{top + 12}" font-size="10">{number(median)}</text>')
    return "\n".join([*out, "</svg>", ""])


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
