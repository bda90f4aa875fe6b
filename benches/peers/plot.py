"""Plots in SVG, drawn by hand: bars in groups, and lines. No library; legible on light and on dark ground, and without colours."""

import math
from xml.sax.saxutils import escape

# Told apart by those who do not see all colours, and by their lightness; each of them on white and on black.
COLOURS = ["#8c8c8c", "#e69f00", "#2684c9", "#56b4e9", "#cc79a7", "#009e73", "#d55e00"]
# Who has the same one in all plots.
OWN = {"postgresql": 0, "postgresql-sync": 1, "postgresql-duolog": 2, "postgresql-duolog-fpw-off": 3, "postgresql-glusterfs": 4,
       "mariadb": 0, "mariadb-semisync": 1, "mariadb-duolog": 2, "mariadb-duolog-dw-off": 3}
# As far from white as from black. There is no ground of its own below it.
INK, GRID = "#777777", "#9a9a9a"
WORKS = {"tpcb": "TPC-B", "insert": "insert", "oltp": "OLTP writes", "select": "select"}
FONT = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif"'


class Drawing:
    """One picture with a title, a plot area and a legend below it."""

    def __init__(self, title, width=900, height=420, left=70, top=48, bottom=104):
        self.width, self.height, self.left, self.top = width, height, left, top
        self.right, self.bottom = width - 40, height - bottom
        self.parts = []
        self.text(16, 26, title, size=16, anchor="start", weight="bold")

    def text(self, x, y, what, size=11, anchor="middle", weight="normal", turn=None, colour=INK):
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
                          f'fill="{colour}" {FONT}{turned}>{escape(what)}</text>')

    def line(self, x1, y1, x2, y2, colour=GRID, width=0.5, dash=""):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
                          f'stroke-width="{width}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")

    def y_axis(self, most, label, form):
        """From zero; returns where a value stands."""
        step = nice(most / 5)
        most = step * (int(most / step - 1e-9) + 1)
        place = lambda value: self.bottom - (self.bottom - self.top) * value / most
        at = 0
        while at * step <= most + step / 1000:
            y = place(at * step)
            self.line(self.left, y, self.right, y)
            self.text(self.left - 8, y + 4, form(at * step), anchor="end")
            at += 1
        self.text(18, (self.top + self.bottom) / 2, label, turn=-90)
        return place

    def legend(self, names):
        x, y = self.left, self.height - 30
        for number, name in enumerate(names):
            wide = 34 + 6.6 * len(name)
            if x + wide > self.right:
                x, y = self.left, y + 18
            self.parts.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="14" height="11" fill="{colour_of(number, name)}"/>')
            self.text(x + 19, y, name, anchor="start")
            x += wide

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img">\n' + "\n".join(self.parts) + "\n</svg>\n")


def colour_of(number, name=""):
    return COLOURS[OWN.get(name, number) % len(COLOURS)]


def nice(value):
    """The least of 1, 2, 5, 10, ... that is not below."""
    unit = 1e-9
    while True:
        for factor in (1, 2, 5):
            if unit * factor >= value:
                return unit * factor
        unit *= 10


def bars(title, label, groups, names, values, mark=None, form="{:.2f}".format):
    """`values[name][group]`, or none where there is no such bar. `mark`: a line across."""
    drawing = Drawing(title)
    most = max([values[name][group] for name in names for group in range(len(groups)) if values[name][group]] + [mark or 0])
    place = drawing.y_axis(most * 1.08, label, lambda value: f"{value:g}" if value < 1000 else f"{value:,.0f}")
    if mark is not None:
        drawing.line(drawing.left, place(mark), drawing.right, place(mark), INK, 1.2, "5 4")
    span = (drawing.right - drawing.left) / len(groups)
    wide = span * 0.84 / len(names)
    for group, name_of_group in enumerate(groups):
        left = drawing.left + span * group + span * 0.08
        for number, name in enumerate(names):
            value = values[name][group]
            if not value:
                continue
            x, y = left + wide * number, place(value)
            drawing.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide * 0.92:.1f}" height="{drawing.bottom - y:.1f}" '
                                 f'fill="{colour_of(number, name)}"/>')
            drawing.text(x + wide * 0.46, y - 4, form(value), size=9 if wide > 22 else 8)
        for row, part in enumerate(name_of_group.split("\n")):
            drawing.text(left + span * 0.42, drawing.bottom + 16 + 13 * row, part)
    drawing.line(drawing.left, drawing.bottom, drawing.right, drawing.bottom, INK, 1.0)
    drawing.legend(names)
    return drawing.svg()


def lines(title, label, x_label, series, logarithmic=False, bands=()):
    """`series[name]`: pairs of x and y. `bands`: pairs of x between which the ground is darker."""
    drawing = Drawing(title)
    xs = [x for points in series.values() for x, _ in points]
    scale = math.log10 if logarithmic else float
    least, most = scale(min(xs)), scale(max(xs))
    across = lambda x: drawing.left + (drawing.right - drawing.left) * (scale(x) - least) / ((most - least) or 1)
    for begin, end in bands:
        drawing.parts.append(f'<rect x="{across(begin):.1f}" y="{drawing.top}" width="{across(end) - across(begin):.1f}" '
                             f'height="{drawing.bottom - drawing.top}" fill="{GRID}" fill-opacity="0.15"/>')
    place = drawing.y_axis(max(y for points in series.values() for _, y in points) * 1.05 or 1, label,
                           lambda value: f"{value:g}" if value < 1000 else f"{value:,.0f}")
    shown = sorted(set(xs))
    if len(shown) > 12:
        step = nice((max(xs) - min(xs)) / 7)
        shown = [it * step for it in range(math.ceil(min(xs) / step), int(max(xs) / step) + 1)]
    for x in shown:
        drawing.line(across(x), drawing.bottom, across(x), drawing.bottom + 4, INK, 1.0)
        drawing.text(across(x), drawing.bottom + 17, f"{x:,.0f}")
    drawing.text((drawing.left + drawing.right) / 2, drawing.bottom + 36, x_label)
    for number, (name, points) in enumerate(series.items()):
        path = " ".join(f"{across(x):.1f},{place(y):.1f}" for x, y in points)
        drawing.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour_of(number, name)}" stroke-width="1.6"/>')
        if len(points) <= 12:
            drawing.parts += [f'<circle cx="{across(x):.1f}" cy="{place(y):.1f}" r="3.5" fill="{colour_of(number, name)}"/>' for x, y in points]
    drawing.line(drawing.left, drawing.bottom, drawing.right, drawing.bottom, INK, 1.0)
    drawing.legend(list(series))
    return drawing.svg()


def group(work, clients, regime):
    return f"{WORKS[work]}\n{clients} client{'s' if clients > 1 else ''}\n{regime}"


def all_of(found, cells):
    """Every plot of a run, by the name of its file: its title and the drawing."""
    drawn = {}

    def keep(name, draw, title, *args, **more):
        drawn[name] = title, draw(title, *args, **more)
    for server, title in (("postgresql", "PostgreSQL"), ("mariadb", "MariaDB")):
        rows = [row for row in cells.rows() if row[2] in ("steady", "interval") and (server, *row) in cells.found]
        names = [it for it in OWN if it.startswith(server) and it != server and any((it, *row) in cells.found for row in rows)]
        if rows and names:
            keep(f"{server}-tps", bars, f"{title} with a second copy: transactions a second, the unreplicated server = 1",
                 "TPS / unreplicated", [group(work, clients, "steady" if regime == "steady" else "checkpoints") for work, clients, regime in rows],
                 names, {name: [cells.ratio(name, server, row) for row in rows] for name in names}, mark=1.0)
    rows = [row for row in cells.rows() if row[0] in ("tpcb", "insert") and ("postgresql-sync", *row) in cells.found]
    names = [it for it in ("postgresql-sync", "postgresql-duolog", "postgresql-duolog-fpw-off") if any((it, *row) in cells.found for row in rows)]
    if rows:
        keep("postgresql-wire", bars, "Bytes on the wire for one transaction, both directions, with all headers", "bytes",
             [group(*row) for row in rows], names,
             {name: [(cells.found.get((name, *row)) or {}).get("wire_bytes") for row in rows] for name in names}, form="{:.0f}".format)
    series = {it["peer"]: list(enumerate(it["tps"])) for it in found if it["kind"] == "series" and it["round"] == 1 and it["work"] == "tpcb"}
    if series:
        keep("postgresql-checkpoints", lines, "TPC-B through two checkpoint intervals of 30 s: transactions in each second", "TPS",
             "seconds; the second interval is measured", series, bands=((30, 59),))
    return drawn
