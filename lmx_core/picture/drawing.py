"""The elements of an SVG."""

from xml.sax.saxutils import escape

from lmx_core.wiring import Box

COLOURS = ("#3f6fd8", "#d9802e", "#2a9d74", "#8b5cd6", "#cf4d7c", "#1b98ae", "#9a8428", "#64748b")
STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; fill: #1f2733 }
.code { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.title { font-size: 24px; font-weight: 600 } .big { font-size: 22px; font-weight: 600 } .name { font-weight: 600 }
.soft { fill: #667085 } .small { font-size: 12px } .caps { font-size: 11px; font-weight: 600; letter-spacing: .08em }
.middle { text-anchor: middle } .end { text-anchor: end }
.page { fill: #f6f7f9 } .panel { fill: #fff; stroke: #dfe3ea } .plain { fill: #f1f3f6; stroke: #c3cad5 }
.line { fill: none; stroke: #8792a3; stroke-width: 1.5 } .tip { fill: #8792a3 } .track { fill: #dde2e9 }
@media (prefers-color-scheme: dark) {
text { fill: #e4e8ee } .soft { fill: #98a2b3 } .page { fill: #12161c } .panel { fill: #1b2129; stroke: #303844 }
.plain { fill: #262d37; stroke: #4a5464 } .track { fill: #3a4452 }
}
"""
LETTER = 7.25
"""Width of a letter of the monospaced font, whichever it is."""


class Drawing:
    """Elements, the later ones above the earlier ones. Lengths are pixels, y goes down."""

    def __init__(self) -> None:
        self.elements: list[str] = []

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        self._add("text", style, escape(text), x=x, y=y)

    def rect(
        self, x: float, y: float, width: float, height: float, style: str = "", radius: float = 6, fill: str = ""
    ) -> None:
        """In a style, or filled with a colour."""
        colour = {"fill": fill} if fill else {}
        self._add("rect", style, x=x, y=y, width=width, height=height, rx=radius, **colour)

    def tinted(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Solid, so that nothing shines through."""
        self.rect(x, y, width, height, "panel")
        self._add("rect", "", x=x, y=y, width=width, height=height, rx=6, fill=colour, fill_opacity=0.16, stroke=colour)

    def line(self, *points: tuple[float, float]) -> None:
        path = " ".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(points))
        self._add("path", "line", d=path)

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line whose last part, level or upright, has a tip."""
        self.line(*points)
        (before_x, before_y), (x, y) = points[-2:]
        dx, dy = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
        back_x, back_y = x - 7 * dx, y - 7 * dy
        corners = (x, y), (back_x + 4 * dy, back_y + 4 * dx), (back_x - 4 * dy, back_y - 4 * dx)
        self._add("path", "tip", d="M" + " L".join(f"{a:g} {b:g}" for a, b in corners) + "Z")

    def plus(self, x: float, y: float) -> None:
        self._add("circle", "panel", cx=x, cy=y, r=9)
        self._add("circle", "line", cx=x, cy=y, r=9)
        self.line((x - 5, y), (x + 5, y))
        self.line((x, y - 5), (x, y + 5))

    def box(self, x: float, y: float, box: Box, colour: str) -> float:
        """With its left edge at x and its middle at y; returns where it ends."""
        width = width_of(box)
        match box.part:
            case "factor":
                self.rect(x, y - 11, width, 22, "panel", 11)
            case "attention" | "ffn" | "block":
                self.tinted(x, y - 14, width, 28, colour)
            case _:
                self.rect(x, y - 14, width, 28, "plain")
        self.text(x + width / 2, y + 4, box.text, "code middle")
        return x + width

    def behind(self, at: int, x: float, y: float, width: float, height: float) -> None:
        """A panel below all elements from number `at` on."""
        panel = Drawing()
        panel.rect(x, y, width, height, "panel", 10)
        self.elements[at:at] = panel.elements

    def svg(self, width: float, height: float, title: str) -> str:
        size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        body = "\n".join(self.elements)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(title)}</title>\n'
            f'<style>{STYLE}</style>\n<rect class="page" width="100%" height="100%"/>\n{body}\n</svg>\n'
        )

    def _add(self, tag: str, style: str, text: str = "", **attributes: str | float) -> None:
        written = f' class="{style}"' if style else ""
        for key, value in attributes.items():
            written += f' {key.replace("_", "-")}="{value if isinstance(value, str) else f"{value:.6g}"}"'
        self.elements.append(f"<{tag}{written}>{text}</{tag}>" if text else f"<{tag}{written}/>")


def width_of(box: Box) -> float:
    return len(box.text) * LETTER + 20


def colour(i: int) -> str:
    """Of the i-th kind of layer."""
    return COLOURS[i % len(COLOURS)]
