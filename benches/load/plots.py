"""Lines on a logarithmic axis, as SVG: enough for growth, and no library."""
import math

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 240, 58, 40, 34, 16


def place(value, least, most, logarithmic):
    if logarithmic:
        value, least, most = math.log10(value), math.log10(least), math.log10(most)
    return 0.5 if most == least else (value - least) / (most - least)


def label(number):
    return f"{number:,.0f}" if abs(number) >= 10 else f"{number:.2g}"


def line(title, axis, points):
    """points: [(x, median, least, most)]; the y axis begins at 0."""
    xs = [x for x, *_ in points]
    top = max(most for *_, most in points) * 1.15 or 1
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = lambda value: LEFT + width * place(value, min(xs), max(xs), True)
    y = lambda value: TOP + height * (1 - value / top)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11" fill="#333">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', f'<text x="{LEFT}" y="18" font-size="13">{title}</text>']
    for step in range(5):
        value = top * step / 4
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{label(value)}</text>')
    for value in xs:
        out.append(f'<text x="{x(value):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{label(value)}</text>')
    out.append(f'<text x="{LEFT + width / 2}" y="{HEIGHT - 6}" text-anchor="middle">{axis}</text>')
    for at, _, least, most in points:
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y(least):.1f}" y2="{y(most):.1f}" stroke="#8ab"/>')
    path = " ".join(f"{x(at):.1f},{y(median):.1f}" for at, median, *_ in points)
    out.append(f'<polyline points="{path}" fill="none" stroke="#26a" stroke-width="2"/>')
    out += [f'<circle cx="{x(at):.1f}" cy="{y(median):.1f}" r="3" fill="#26a"/>' for at, median, *_ in points]
    return "\n".join([*out, "</svg>", ""])
