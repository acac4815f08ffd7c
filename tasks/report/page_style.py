"""The page's style sheet: light and dark by the reader's setting, from a phone's width to a wide screen."""

from labelmill.tasks.report.pictures import COLOURS

_COLOUR_RULES = "\n".join(f".c{place} {{ --class: rgb{colour}; }}" for place, colour in enumerate(COLOURS))

STYLE = f"""
:root {{
  color-scheme: light dark;
  --ground: #f4f5f7; --card: #ffffff; --ink: #1a1d23; --soft: #5c6470; --line: #dfe3e8; --bar: #9aa4b1;
  --good: #157a45; --good-ground: #e3f5ea; --odd: #96510a; --odd-ground: #fdf0dc;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ground: #111418; --card: #1b1f26; --ink: #e8eaed; --soft: #a0a9b5; --line: #313741; --bar: #66707d;
    --good: #7ddba3; --good-ground: #163524; --odd: #f3bd73; --odd-ground: #3a2a12;
  }}
}}
{_COLOUR_RULES}
* {{ box-sizing: border-box; }}
body {{
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}}
main {{ max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }}
h1 {{ font-size: 26px; line-height: 1.25; margin: 0 0 14px; overflow-wrap: anywhere; }}
h2 {{ font-size: 15px; line-height: 1.4; margin: 0; font-weight: 600; overflow-wrap: anywhere; }}
h3 {{ font-size: 12px; margin: 0 0 8px; color: var(--soft); font-weight: 600; }}
p {{ margin: 0; }}
.soft {{ color: var(--soft); }}
.lead {{ max-width: 105ch; margin: 10px 0 20px; }}
.panel, .card {{
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin: 0 0 18px;
}}
.facts {{ display: grid; grid-template-columns: max-content 1fr; gap: 3px 20px; margin: 0; font-size: 14px; }}
.facts dt {{ color: var(--soft); }}
.facts dd {{ margin: 0; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 14px; white-space: nowrap; font-variant-numeric: tabular-nums; }}
.caption {{ font-weight: 600; margin-bottom: 8px; max-width: 105ch; }}
.note {{ margin-top: 12px; max-width: 105ch; }}
th, td {{ text-align: right; padding: 5px 22px 5px 0; border-bottom: 1px solid var(--line); vertical-align: bottom; }}
th {{ color: var(--soft); font-weight: 600; font-size: 13px; }}
th.text, td.text {{ text-align: left; }}
tr:last-child td {{ border-bottom: 0; }}
tr.total td {{ font-weight: 600; }}
.card header {{ display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; margin-bottom: 12px; }}
.tag {{ font-size: 12.5px; padding: 1px 9px; border-radius: 99px; border: 1px solid var(--line); color: var(--soft); }}
.tag.good {{ color: var(--good); background: var(--good-ground); border-color: transparent; }}
.tag.odd {{ color: var(--odd); background: var(--odd-ground); border-color: transparent; }}
.figures {{ display: flex; flex-wrap: wrap; gap: 14px; margin-bottom: 14px; align-items: flex-start; }}
figure {{ margin: 0; flex: none; width: min(var(--width), calc(50% - 7px)); }}
figcaption {{ font-size: 12.5px; line-height: 1.4; margin-top: 5px; color: var(--soft); }}
figcaption b {{ color: var(--ink); font-weight: 600; }}
.photo {{
  position: relative; overflow: hidden; border-radius: 6px; max-width: 100%;
  background: var(--photo, none) center / 100% 100% var(--line);
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}}
.photo img {{ position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated; }}
.photo.heat::before {{ content: ""; position: absolute; inset: 0; background: rgb(0 0 0 / 35%); }}
.none {{ display: grid; place-items: center; text-align: center; padding: 8px; font-size: 12px; color: var(--soft); }}
.box {{ position: absolute; border: 2px solid #fff; outline: 1px solid rgb(0 0 0 / 65%); border-radius: 2px; }}
.box span {{
  position: absolute; left: 0; top: 0; padding: 0 5px;
  background: #fff; color: #111; font-size: 11px; line-height: 15px;
}}
.swatch {{
  display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px;
  background: var(--class); vertical-align: -0.5px;
}}
.labels {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 16px 28px; }}
.bars {{ list-style: none; margin: 0; padding: 0; font-size: 13px; font-variant-numeric: tabular-nums; }}
.bars li {{
  display: grid; grid-template-columns: minmax(0, 38%) 1fr; gap: 8px; align-items: center; padding: 2px 0;
}}
.bars .name {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.track {{ display: grid; grid-template-columns: minmax(0, 1fr) 5ch; gap: 6px; align-items: center; text-align: right; }}
.track i {{ display: block; height: 9px; border-radius: 3px; background: var(--class, var(--bar)); min-width: 1px; }}
.crop {{ display: flex; gap: 12px; align-items: flex-start; }}
.crop .photo {{ flex: none; }}
.crop .bars {{ flex: 1; min-width: 0; }}
.crop p {{ font-size: 12.5px; color: var(--soft); margin-bottom: 2px; }}
.crop div:last-child {{ flex: 1; min-width: 0; }}
@media (max-width: 560px) {{
  main {{ padding: 18px 12px 40px; }}
  .panel, .card {{ padding: 13px 13px; }}
  .facts {{ grid-template-columns: 1fr; gap: 0; }}
  .facts dd {{ margin-bottom: 6px; }}
}}
"""
