"""The style sheet of the HTML report: light, dark, a phone, paper."""

from __future__ import annotations

from ipttrace.render.svg import DARK, FONT, LIGHT

_LIGHT = {"ink": LIGHT["ink"], "page": LIGHT["page"], "faint": "#5a626c", "line": "#d0d7de"}
_LIGHT |= {"good": LIGHT["lit"], "bad": LIGHT["dead"], "open": "#7d4e00", "changed": "#0a52b5"}
_DARK = {"ink": DARK["ink"], "page": DARK["page"], "faint": "#9aa4af", "line": "#3d444d"}
_DARK |= {"good": DARK["lit"], "bad": DARK["dead"], "open": "#e3b341", "changed": "#79c0ff"}


def _palette(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}"


PAGE_STYLE = (
    _palette(_LIGHT)
    + "@media screen and (prefers-color-scheme:dark){"
    + _palette(_DARK)
    + "}"
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:0}h2{font-size:1.15rem;margin:1.6rem 0 .3rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
header p,footer p{color:var(--faint);margin:.2rem 0}
section{border-top:1px solid var(--line);margin-top:1.5rem}
aside{border:1px solid var(--line);border-left:4px solid var(--open);padding:0 1rem;margin-top:1rem}
aside h2{margin-top:.6rem}
a{color:var(--changed)}
.fate{font-weight:bold}.good{color:var(--good)}.bad{color:var(--bad);font-weight:bold}
.open{color:var(--open)}.changed{color:var(--changed)}.faint{color:var(--faint)}
.picture{overflow-x:auto;margin:.8rem 0}.picture.wide svg{max-width:100%;height:auto}
.picture.narrow{display:none}.picture.narrow svg{max-width:100%;height:auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:0}
dt{color:var(--faint)}dd{margin:0}
ul{margin:.2rem 0;padding-left:1.3rem}
table{border-collapse:collapse;width:100%}
th{text-align:left;color:var(--faint);font-weight:normal;border-bottom:1px solid var(--line)}
td,th{padding:.2rem .6rem .2rem 0;vertical-align:top}
tbody tr:nth-child(even){background:color-mix(in srgb,var(--ink) 5%,transparent)}
.n,.counter{color:var(--faint);white-space:nowrap}.where{white-space:nowrap}
"""
    + f"code,td.rule,td.where,td.effect{{font-family:{FONT};font-size:.9rem}}"
    + """
@media screen and (max-width:50rem){
.picture.wide{display:none}.picture.narrow{display:block}
thead{display:none}tr{display:block;padding:.4rem;border-bottom:1px solid var(--line)}
td{display:inline;padding:0 .4rem 0 0}td.rule{display:block}td:empty{display:none}
dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{
body{max-width:none;padding:0;font-size:10.5pt}
section,tr,.picture{break-inside:avoid}section{break-inside:auto}h2,h3{break-after:avoid}
nav{display:none}.where{white-space:normal}a{color:inherit;text-decoration:none}
.picture.wide{display:block}.picture.narrow{display:none}}
"""
)
